// Package dlt645 speaks DL/T 645-2007, the protocol of Chinese electricity
// meters: frames, requests, replies, and what the data identifiers mean.
//
// A frame (§5.2 of the standard) is, after up to a few wake-up bytes FEH:
//
//	68H  A0..A5  68H  C  L  DATA  CS  16H
//
// A0..A5 is the address as 12 BCD digits, lowest pair first. C is the control
// code: bit 7 is set by the meter, bit 6 in an error reply, bit 5 when a
// follow-up frame is waiting, bits 0 to 4 are the function. L counts DATA, 0 to
// 200. Each byte of DATA travels with 33H added. CS is the sum modulo 256 of
// everything from the first 68H to the end of DATA.
//
// The package holds no clock and no line. A poller builds a request with an
// Append function, feeds what comes back to a Decoder, asks Frame.Answers
// whether the frame is its reply, Frame.Err whether the meter refused, and
// Item.Append for the values. A block too long for one frame is put together
// by an Assembly.
package dlt645
