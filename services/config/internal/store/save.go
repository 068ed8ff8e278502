package store

import "time"

const (
	// saveDelay gathers the changes of one moment into one write.
	saveDelay = 100 * time.Millisecond
	// savePause is how long a full disk is left alone.
	savePause = 5 * time.Second
)

// touch says that the cache file is behind.
func (s *Store) touch() {
	select {
	case s.dirty <- struct{}{}:
	default: // it is known already
	}
}

// save keeps the cache file up to date until end is closed, and once more then.
func (s *Store) save(end <-chan struct{}) {
	delay := saveDelay
	for {
		select {
		case <-s.dirty:
		case <-end:
			select {
			case <-s.dirty:
				s.write()
			default:
			}
			return
		}
		gather := time.NewTimer(delay)
		select {
		case <-gather.C:
		case <-end:
			gather.Stop()
			s.write()
			return
		}
		if s.write() {
			delay = saveDelay
		} else {
			delay = savePause
			s.touch()
		}
	}
}

// write saves once; a failure is reported and tried again.
func (s *Store) write() bool {
	err := s.Cache.Save(s.body())
	s.mu.Lock()
	if err != nil {
		s.counts.cacheFaults++
	} else {
		s.counts.cacheSaves++
	}
	s.mu.Unlock()
	if err != nil {
		s.Log.Error("cache not saved", "err", err)
		s.Degrade("cache", err.Error())
		return false
	}
	s.Degrade("cache", "")
	return true
}
