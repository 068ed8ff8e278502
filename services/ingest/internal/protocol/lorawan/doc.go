// Package lorawan opens the data-up frames of LoRaWAN 1.0.x devices that are
// activated by personalisation (ABP): it checks the message code, rebuilds the
// 32-bit frame counter, refuses replays, and decrypts.
//
// It holds no radio, no clock and no goroutine. A Device is one device's keys
// and counter; a Table finds the device that a frame is from.
package lorawan
