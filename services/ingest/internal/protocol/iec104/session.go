package iec104

import (
	"errors"
	"fmt"
	"time"
)

// State is where a connection stands.
type State uint8

// The states.
const (
	Connecting State = iota // the TCP connection does not stand yet
	Starting                // STARTDT act is sent
	Started                 // I frames flow
	Stopping                // STOPDT act is sent
	Stopped                 // STOPDT con came; the connection may be closed
	Failed                  // an error was returned; the connection is to be closed
)

// Errors of a connection. Each ends it. They are matched with errors.Is.
var (
	// ErrSequence means that N(S) or N(R) is not one that may come now: frames
	// were lost, doubled or acknowledged before they were sent.
	ErrSequence = errors.New("iec104: sequence number out of step")
	// ErrTimeout means that t0 or t1 ran out.
	ErrTimeout = errors.New("iec104: no answer in time")
	// ErrState means that a frame or a call does not belong to the state of the
	// connection.
	ErrState = errors.New("iec104: not in this state")
)

// ErrWindow means that k I frames are waiting for acknowledgement. The call may
// be made again after the next Receive; the connection goes on.
var ErrWindow = errors.New("iec104: send window is full")

// Kind is what happened.
type Kind uint8

// The kinds of events.
const (
	None                   Kind = iota // nothing that the owner must act on
	Start                              // data transfer is started
	Stop                               // data transfer is stopped: close the connection
	Data                               // an ASDU with values
	Initialised                        // the station has restarted: interrogate it again
	InterrogationConfirmed             // the station will send its values
	InterrogationRefused               // the station will not
	InterrogationEnded                 // the station has sent all its values
	InterrogationTimedOut              // it did not in time; it may be asked again
	Skipped                            // an I frame in order whose ASDU is not understood; see Err
)

// Event is what a call brought about.
type Event struct {
	// Kind is what happened.
	Kind Kind
	// ASDU is the data unit, of Data and Initialised. It lies in the bytes that
	// were given to Receive.
	ASDU ASDU
	// Err says why an ASDU was Skipped, and why an interrogation was refused.
	Err error
}

// Session is the controlling station's side of one connection. It is for one
// goroutine.
type Session struct {
	cfg   Config
	state State
	out   []byte

	send, acked uint16      // V(S), and the oldest I frame not yet acknowledged
	sentAt      []time.Time // ring of K: when the unacknowledged I frames were sent
	oldestAt    int         // where in sentAt the oldest is
	receive     uint16      // V(R)
	unacked     int         // I frames received and not acknowledged

	unackedSince time.Time // starts t2
	heard        time.Time // starts t3
	began        time.Time // starts t0; then t1 of STARTDT and STOPDT
	testing      bool
	testedAt     time.Time // starts t1 of TESTFR

	asked       bool // an interrogation is on its way
	askedCommon uint16
	askedAt     time.Time
}

// NewSession returns a Session that waits for its connection. It fails as
// Config.Check does.
func NewSession(cfg Config, now time.Time) (*Session, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return &Session{cfg: cfg, began: now, sentAt: make([]time.Time, cfg.K), out: make([]byte, 0, 2*MaxAPDU)}, nil
}

// State returns where the connection stands.
func (s *Session) State() State { return s.state }

// Output returns the bytes to write, none when there are none. They are good
// until the next call, and are returned once.
func (s *Session) Output() []byte {
	out := s.out
	s.out = s.out[:0]
	return out
}

// Connected says that the TCP connection stands, and asks for data transfer.
func (s *Session) Connected(now time.Time) error {
	if s.state != Connecting {
		return fmt.Errorf("connected: %w", ErrState)
	}
	s.state, s.began, s.heard = Starting, now, now
	s.function(StartActivate)
	return nil
}

// Stop asks for the end of data transfer. Values may come until the Stop event.
func (s *Session) Stop(now time.Time) error {
	if s.state != Started {
		return fmt.Errorf("stop: %w", ErrState)
	}
	s.acknowledge()
	s.state, s.began = Stopping, now
	s.function(StopActivate)
	return nil
}

// Send sends a data unit of 1 to 249 bytes in an I frame. It fails with
// ErrState before and after data transfer, and with ErrWindow.
func (s *Session) Send(asdu []byte, now time.Time) error {
	if s.state != Started {
		return fmt.Errorf("send: %w", ErrState)
	}
	if len(asdu) == 0 || len(asdu) > maxASDU {
		return fmt.Errorf("send: %w: must have 1 to %d bytes, has %d", ErrASDU, maxASDU, len(asdu))
	}
	if s.outstanding() >= s.cfg.K {
		return fmt.Errorf("send: %w: %d frames", ErrWindow, s.cfg.K)
	}
	s.out = APDU{Format: FormatI, Send: s.send, Receive: s.receive, ASDU: asdu}.Append(s.out)
	s.sentAt[(s.oldestAt+s.outstanding())%s.cfg.K] = now
	s.send = (s.send + 1) % modulus
	s.unacked = 0
	return nil
}

// Interrogate asks the station, or with common 65535 all stations behind the
// connection, for all values. One interrogation runs at a time; its end is one
// of the Interrogation events. It fails as Send does.
func (s *Session) Interrogate(common uint16, now time.Time) error {
	if s.asked {
		return fmt.Errorf("interrogate %d: %w: station %d is being interrogated", common, ErrState, s.askedCommon)
	}
	var buf [asduHead + addressSize + 1]byte
	if err := s.Send(interrogation(buf[:0], common, s.cfg.Originator), now); err != nil {
		return fmt.Errorf("interrogate %d: %w", common, err)
	}
	s.asked, s.askedCommon, s.askedAt = true, common, now
	return nil
}

func (s *Session) function(f Function) { s.out = APDU{Format: FormatU, Function: f}.Append(s.out) }

func (s *Session) acknowledge() {
	if s.unacked > 0 {
		s.out = APDU{Format: FormatS, Receive: s.receive}.Append(s.out)
		s.unacked = 0
	}
}

// outstanding is how many of our I frames are not acknowledged.
func (s *Session) outstanding() int { return int(s.send-s.acked) % modulus }

// Receive takes one frame from the start of p and returns how many bytes it
// took, 0 when the frame goes on behind p (p is then at most 254 bytes). An
// error ends the connection.
func (s *Session) Receive(p []byte, now time.Time) (n int, ev Event, err error) {
	switch s.state {
	case Starting, Started, Stopping:
	default:
		return 0, Event{}, fmt.Errorf("receive: %w", ErrState)
	}
	a, n, err := ParseAPDU(p)
	if errors.Is(err, ErrShort) {
		return 0, Event{}, nil
	}
	if err == nil {
		s.heard = now
		switch a.Format {
		case FormatI:
			ev, err = s.information(a, now)
		case FormatS:
			err = s.acknowledged(a.Receive)
		case FormatU:
			ev, err = s.control(a.Function)
		}
	}
	if err != nil {
		s.state = Failed
		return n, Event{}, fmt.Errorf("receive: %w", err)
	}
	return n, ev, nil
}

// acknowledged takes N(R).
func (s *Session) acknowledged(n uint16) error {
	if int(n-s.acked)%modulus > s.outstanding() {
		return fmt.Errorf("%w: N(R) must be %d to %d, is %d", ErrSequence, s.acked, s.send, n)
	}
	s.oldestAt = (s.oldestAt + int(n-s.acked)%modulus) % s.cfg.K
	s.acked = n
	return nil
}

func (s *Session) information(a APDU, now time.Time) (Event, error) {
	if s.state == Starting {
		return Event{}, fmt.Errorf("%w: I frame before STARTDT con", ErrState)
	}
	if a.Send != s.receive {
		return Event{}, fmt.Errorf("%w: N(S) must be %d, is %d", ErrSequence, s.receive, a.Send)
	}
	if err := s.acknowledged(a.Receive); err != nil {
		return Event{}, err
	}
	s.receive = (s.receive + 1) % modulus
	if s.unacked == 0 {
		s.unackedSince = now
	}
	// A station that is being stopped waits for what it has sent.
	if s.unacked++; s.unacked >= s.cfg.W || s.state == Stopping {
		s.acknowledge()
	}
	return s.data(a.ASDU), nil
}

// data says what a data unit is to the owner. What is not understood is no
// reason to leave: its frame was in order.
func (s *Session) data(raw []byte) Event {
	asdu, err := ParseASDU(raw)
	switch {
	case err != nil:
		return Event{Kind: Skipped, Err: err}
	case asdu.Type == EndOfInit:
		return Event{Kind: Initialised, ASDU: asdu}
	case asdu.Type != InterrogationType:
		return Event{Kind: Data, ASDU: asdu}
	case !s.isAnswer(asdu):
		return Event{Kind: Skipped, Err: fmt.Errorf("%w: %v of station %d with cause %d was not asked for", ErrState, asdu.Type, asdu.Common, asdu.Cause)}
	case asdu.Cause == ActivationConfirm && !asdu.Negative:
		return Event{Kind: InterrogationConfirmed}
	case asdu.Cause == ActivationTermination && !asdu.Negative:
		s.asked = false
		return Event{Kind: InterrogationEnded}
	}
	s.asked = false
	return Event{Kind: InterrogationRefused, Err: fmt.Errorf("station %d refuses interrogation: cause %d", asdu.Common, asdu.Cause)}
}

// isAnswer reports whether a data unit answers the interrogation on its way.
func (s *Session) isAnswer(a ASDU) bool {
	if !s.asked || a.Type != InterrogationType || (a.Common != s.askedCommon && s.askedCommon != 0xFFFF) {
		return false
	}
	switch a.Cause {
	case ActivationConfirm, ActivationTermination, UnknownType, UnknownCause, UnknownCommonAddress, UnknownObjectAddress:
		return true
	case Periodic, Spontaneous, Activation, Interrogated:
	}
	return false
}

func (s *Session) control(f Function) (Event, error) {
	switch {
	case f == TestActivate:
		s.function(TestConfirm)
		return Event{}, nil
	case f == TestConfirm:
		s.testing = false // one that was not asked for does no harm
		return Event{}, nil
	case f == StartConfirm && s.state == Starting:
		s.state = Started
		return Event{Kind: Start}, nil
	case f == StopConfirm && s.state == Stopping:
		s.state = Stopped
		return Event{Kind: Stop}, nil
	}
	return Event{}, fmt.Errorf("%w: %v", ErrState, f)
}
