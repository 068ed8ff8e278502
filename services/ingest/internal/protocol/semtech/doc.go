// Package semtech speaks the Semtech UDP packet-forwarder protocol, version 2,
// between a LoRa gateway and a server: the datagrams and their JSON.
//
// Every datagram starts with the version, a token of two bytes and an
// identifier. PUSH_DATA, PULL_DATA and TX_ACK, which a gateway sends, carry its
// 8-byte identity next; PUSH_DATA, PULL_RESP and TX_ACK end in JSON. A server
// answers PUSH_DATA with PUSH_ACK and PULL_DATA with PULL_ACK at once, both with
// the token of what they answer, and may send PULL_RESP to where the newest
// PULL_DATA came from. Nothing in the protocol says who a gateway is: only the
// message codes inside the LoRaWAN frames can be trusted.
package semtech
