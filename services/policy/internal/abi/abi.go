package abi

import "fmt"

// The names and sizes of doc.go.
const (
	Version    = 1
	BufferSize = 24576

	ExportMemory     = "memory"
	ExportVersion    = "xh_abi_version"
	ExportBuffer     = "xh_buffer"
	ExportEvaluate   = "xh_evaluate"
	ExportReason     = "xh_reason"
	ExportInitialize = "_initialize"

	WASI = "wasi_snapshot_preview1"

	MaxReasons     = 256
	MaxReasonBytes = 256
)

// ImportAllowed reports whether a module may import a function.
func ImportAllowed(module, name string) bool {
	if module != WASI {
		return false
	}
	switch name {
	case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get",
		"clock_time_get", "random_get", "fd_write", "proc_exit":
		return true
	}
	return false
}

// Action is what is to be done with a reading.
type Action uint8

// The actions, with the numbers that cross the border.
const (
	Accept    Action = 1
	Reject    Action = 2
	Alert     Action = 3
	Transform Action = 4
)

func (a Action) String() string {
	switch a {
	case Accept:
		return "ACCEPT"
	case Reject:
		return "REJECT"
	case Alert:
		return "ALERT"
	case Transform:
		return "TRANSFORM"
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// Unpack takes xh_evaluate's result apart.
func Unpack(packed uint64) (a Action, reason, output uint32) {
	return Action(packed >> 56), uint32(packed>>32) & 0xffffff, uint32(packed)
}

// UnpackText takes xh_reason's result apart.
func UnpackText(packed uint64) (address, size uint32) {
	return uint32(packed >> 32), uint32(packed)
}
