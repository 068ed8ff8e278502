//go:build tinygo

package xh

import "unsafe"

var (
	buffer  [BufferSize]byte
	reasons []string
	judge   func(Reading) uint64
)

// Handle sets the policy. Call it from init, once. Reason i+1 of a Verdict is
// texts[i]. A judge must not allocate.
func Handle(f func(Reading) uint64, texts ...string) { judge, reasons = f, texts }

//go:wasmexport xh_abi_version
func abiVersion() uint32 { return 1 }

//go:wasmexport xh_buffer
func bufferAddress() uint32 { return uint32(uintptr(unsafe.Pointer(&buffer))) }

//go:wasmexport xh_reason
func reason(id uint32) uint64 {
	if id == 0 || id > uint32(len(reasons)) {
		return 0
	}
	s := reasons[id-1]
	return uint64(uintptr(unsafe.Pointer(unsafe.StringData(s))))<<32 | uint64(len(s))
}

//go:wasmexport xh_evaluate
func evaluate(size uint32) uint64 {
	if size > BufferSize {
		return 0
	}
	r, ok := NewReading(buffer[:size])
	if !ok {
		return 0
	}
	return judge(r)
}
