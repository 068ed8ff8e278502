package supervise

import "time"

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 30 * time.Second
	// settledPause is the longest pause after a life that was not short: such a
	// service works, something ended it, and it is to be back at once.
	settledPause = time.Second
	// shortLife tells a service that cannot run from one that was ended.
	shortLife = 2 * time.Second
	// longLife forgets what was before.
	longLife = time.Minute
	// A crash loop is this many short lives that ended within the window.
	loopExits  = 5
	loopWindow = time.Minute
)

// backoff says how long to wait before the next start.
type backoff struct {
	next   time.Duration
	shorts []time.Time // ends of the last short lives, at most loopExits

	looping bool // until a life is not short: the pauses spread the exits beyond the window
}

// after returns the pause after a life that ended at now, and whether this is a
// crash loop.
func (b *backoff) after(now time.Time, life time.Duration) (pause time.Duration, looping bool) {
	switch {
	case life >= longLife:
		b.reset()
	case life >= shortLife:
		b.shorts, b.looping = nil, false
		b.next = min(b.next, settledPause)
	default:
		b.shorts = append(b.shorts, now)
		if n := len(b.shorts); n > loopExits {
			b.shorts = b.shorts[n-loopExits:]
		}
	}
	pause = max(b.next, firstPause)
	if life < shortLife {
		b.next = min(2*pause, maxPause)
	}
	if n := len(b.shorts); n == loopExits && now.Sub(b.shorts[0]) <= loopWindow {
		b.looping = true
	}
	if b.looping {
		return maxPause, true
	}
	return pause, false
}

func (b *backoff) reset() { *b = backoff{} }
