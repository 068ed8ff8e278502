package xh

// Action is what is to be done with a reading.
type Action uint8

// The actions. TRANSFORM is reserved: the engine refuses it today.
const (
	Accept Action = 1
	Reject Action = 2
	Alert  Action = 3
)

// Verdict packs an action and a reason's id, which counts from 1 in the order
// of the policy's reasons; 0 means no reason.
func Verdict(a Action, reason uint32) uint64 {
	return uint64(a)<<56 | uint64(reason&0xffffff)<<32
}
