package fleet

import (
	"math"
	"time"
)

// pace says when a meter's frames fall due: by an absolute schedule, so that
// neither late wake-ups nor slow writes make it drift.
type pace struct {
	start time.Time     // of the first frame; the zero time in a closed loop
	rate  float64       // frames a second; 0 is a closed loop
	tick  time.Duration // between wake-ups, at least
	taken uint64        // frames sent or given up
}

// maxLag is how far a meter catches up; frames that are due for longer are
// given up, so that an outage does not end in a flood.
const maxLag = time.Second

// hair is the part of an interval that a frame may be early, so that a wake-up
// at the very moment, rounded to nanoseconds, finds it due.
const hair = 1e-4

func newPace(o Options, epoch time.Time, phase float64) pace {
	p := pace{rate: o.Rate / float64(o.Batch), tick: o.Tick}
	if p.rate > 0 {
		p.start = epoch.Add(time.Duration(phase * float64(max(p.interval(), p.tick))))
	}
	return p
}

func (p *pace) interval() time.Duration { return time.Duration(float64(time.Second) / p.rate) }

func (p *pace) closedLoop() bool { return p.rate == 0 }

// due returns how many frames may go out now, and how many it has given up
// because they were due for longer than maxLag.
func (p *pace) due(now time.Time) (frames, late uint64) {
	if p.closedLoop() {
		return 1, 0
	}
	since := now.Sub(p.start)
	if since < 0 {
		return 0, 0
	}
	frames = uint64(since.Seconds()*p.rate+hair) + 1 - p.taken
	if limit := uint64(math.Ceil(p.rate*maxLag.Seconds())) + 1; frames > limit {
		late = frames - limit
		p.taken += late
		frames = limit
	}
	return frames, late
}

// take counts frames as sent or given up.
func (p *pace) take(frames uint64) { p.taken += frames }

// wake returns when to look again, after due has been taken: when the next
// frame falls due, but on the grid of ticks when frames are closer than those.
func (p *pace) wake(now time.Time) time.Time {
	if p.interval() >= p.tick {
		return p.start.Add(time.Duration(float64(p.taken) / p.rate * float64(time.Second)))
	}
	if now.Before(p.start) {
		return p.start
	}
	return p.start.Add((now.Sub(p.start)/p.tick + 1) * p.tick)
}
