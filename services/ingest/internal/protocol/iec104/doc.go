// Package iec104 speaks IEC 60870-5-104 as a controlling station: the framing
// (APCI), the data units (ASDU) that a substation reports with, and the state
// machine of one connection.
//
// Session holds no socket, no clock and no goroutine. Its owner passes bytes
// and the time in, writes what Output returns, and calls Tick when Deadline is
// reached:
//
//	s := iec104.NewSession(cfg, now)
//	s.Connected(now)                  // the TCP connection stands
//	n, ev, err := s.Receive(p, now)   // one frame at a time
//	conn.Write(s.Output())            // after each call
//	ev, err = s.Tick(now)             // at s.Deadline()
//
// Any error ends the connection: the standard has no other way back into step.
package iec104
