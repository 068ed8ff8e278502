// Package node measures the whole node: the built `xinghuo up` as its user
// starts it, driven by the fleet over real WebSockets, beside the naive peer on
// the same policy service, NATS and MQTT door, in turns.
package node
