package supervise

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
)

const (
	// maxLine bounds a line of a service's log; the rest of it is cut off.
	maxLine = 16 << 10
	// tailBytes is how much of a service's last words is kept.
	tailBytes = 1 << 10
	// maxLog bounds a service's log file: beyond it the file becomes
	// <service>.log.1 and starts again.
	maxLog = 8 << 20
)

// lines passes what a service writes on to the agent's log: JSON lines as they
// are, others behind the service's name. A write of the agent's log is one
// whole line, so that services do not mix within one.
type lines struct {
	service string
	out     io.Writer

	mu   sync.Mutex // guards what follows
	line []byte
	cut  bool // the rest of this line is dropped
	tail []byte
}

// Write implements io.Writer. It never fails: a service must not end because
// its log cannot be written.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if n := len(l.tail) - tailBytes; n > 0 {
		l.tail = append(l.tail[:0], l.tail[n:]...)
	}
	for rest := p; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte{'\n'})
		rest = after
		if !l.cut {
			room := maxLine - len(l.line)
			l.cut = len(part) > room
			l.line = append(l.line, part[:min(room, len(part))]...)
		}
		if whole {
			l.flush()
		}
	}
	return len(p), nil
}

func (l *lines) flush() {
	if len(l.line) > 0 {
		out := make([]byte, 0, len(l.service)+len(l.line)+8)
		if l.line[0] != '{' {
			out = append(out, l.service...)
			out = append(out, ": "...)
		}
		out = append(out, l.line...)
		if l.cut {
			out = append(out, " …"...)
		}
		_, _ = l.out.Write(append(out, '\n'))
	}
	l.line, l.cut = l.line[:0], false
}

// last returns the last words, without the line that the tail begins within.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
	return lastLines(l.tail)
}

func lastLines(tail []byte) string {
	if len(tail) >= tailBytes {
		if _, after, ok := bytes.Cut(tail, []byte{'\n'}); ok {
			tail = after
		}
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(tail)), "?")
}

// fileTail returns the last words of a log file from offset on.
func fileTail(path string, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(offset, info.Size()-tailBytes)
	if info.Size() < offset { // it was cut meanwhile
		from = max(0, info.Size()-tailBytes)
	}
	tail := make([]byte, min(tailBytes, max(0, info.Size()-from)))
	n, _ := f.ReadAt(tail, from)
	return lastLines(tail[:n])
}

// trim bounds a log file that a process holds open for appending: the file's
// end is kept beside it, and the file goes on from empty. A line that is
// written between the two steps is lost.
func trim(path string, limit int64) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= limit {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	keep, err := os.OpenFile(path+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, logMode)
	if err != nil {
		return err
	}
	defer func() { _ = keep.Close() }()
	if _, err := io.Copy(keep, io.NewSectionReader(f, max(0, info.Size()-limit), limit)); err != nil {
		return err
	}
	return f.Truncate(0)
}
