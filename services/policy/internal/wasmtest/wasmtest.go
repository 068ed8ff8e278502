// Package wasmtest writes small WebAssembly modules by hand, good and bad ones.
// Tests only.
package wasmtest

// Module describes a policy module. Its zero value accepts every reading.
type Module struct {
	Version    byte        // of the ABI; 0 is 1
	Evaluate   []byte      // instructions without the last end; nil accepts
	Locals     uint32      // i32 locals of xh_evaluate
	Start      []byte      // instructions of a start function; nil is none
	Imports    [][2]string // functions (i32) -> ()
	ImportKind byte        // 0 function; else one that is refused
	Pages      uint32      // of memory at the start; 0 is 1
	Tables     []uint32    // minimum sizes
	Globals    int         // mutable i32
	Functions  int         // more functions, that do nothing
	Buffer     int32       // address of the scratch buffer
	Without    string      // an export to leave out
}

// The instructions that tests need.
const (
	Unreachable = 0x00
	Block       = 0x02
	Loop        = 0x03
	If          = 0x04
	End         = 0x0b
	Br          = 0x0c
	Call        = 0x10
	Drop        = 0x1a
	LocalGet    = 0x20
	GlobalGet   = 0x23
	GlobalSet   = 0x24
	MemoryGrow  = 0x40
	I32Const    = 0x41
	I64Const    = 0x42
	Void        = 0x40 // a block's type
)

// Forever is `loop br 0 end`.
func Forever() []byte { return []byte{Loop, Void, Br, 0, End} }

// Answer is an i64.const of a verdict.
func Answer(action byte, reason uint32) []byte {
	return S64([]byte{I64Const}, int64(uint64(action)<<56|uint64(reason)<<32))
}

// U32 appends an unsigned LEB128.
func U32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// S64 appends a signed LEB128.
func S64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func name(b []byte, s string) []byte { return append(U32(b, uint32(len(s))), s...) }

func section(b []byte, id byte, count int, body []byte) []byte {
	if count == 0 {
		return b
	}
	head := U32(nil, uint32(count))
	b = U32(append(b, id), uint32(len(head)+len(body)))
	return append(append(b, head...), body...)
}

// Bytes returns the module in its binary form.
func (m Module) Bytes() []byte {
	const none, toI32, i32ToI64, i32To = 0, 1, 2, 3 // types
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = section(b, 1, 4, []byte{0x60, 0, 0, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7e, 0x60, 1, 0x7f, 0})

	var imports []byte
	for _, i := range m.Imports {
		imports = name(name(imports, i[0]), i[1])
		imports = append(imports, m.ImportKind, i32To)
	}
	b = section(b, 2, len(m.Imports), imports)

	type function struct {
		kind   byte
		locals uint32
		code   []byte
	}
	evaluate := m.Evaluate
	if evaluate == nil {
		evaluate = Answer(1, 0)
	}
	functions := []function{
		{toI32, 0, []byte{I32Const, max(m.Version, 1)}},
		{toI32, 0, S64([]byte{I32Const}, int64(m.Buffer))},
		{i32ToI64, m.Locals, evaluate},
	}
	if m.Start != nil {
		functions = append(functions, function{none, 0, m.Start})
	}
	for range m.Functions {
		functions = append(functions, function{none, 0, nil})
	}
	var kinds, code []byte
	for _, f := range functions {
		kinds = append(kinds, f.kind)
		body := []byte{0}
		if f.locals > 0 {
			body = append(U32([]byte{1}, f.locals), 0x7f)
		}
		body = append(append(body, f.code...), End)
		code = append(U32(code, uint32(len(body))), body...)
	}
	b = section(b, 3, len(functions), kinds)

	var tables []byte
	for _, low := range m.Tables {
		tables = U32(append(tables, 0x70, 0), low)
	}
	b = section(b, 4, len(m.Tables), tables)
	b = section(b, 5, 1, U32([]byte{0}, max(m.Pages, 1)))

	var globals []byte
	for range m.Globals {
		globals = append(globals, 0x7f, 1, I32Const, 0, End)
	}
	b = section(b, 6, m.Globals, globals)

	var exports []byte
	count := 0
	first := uint32(len(m.Imports))
	for i, e := range []string{"xh_abi_version", "xh_buffer", "xh_evaluate", "memory"} {
		if e == m.Without {
			continue
		}
		count++
		exports = name(exports, e)
		if e == "memory" {
			exports = append(exports, 2, 0)
			continue
		}
		exports = U32(append(exports, 0), first+uint32(i))
	}
	b = section(b, 7, count, exports)
	if m.Start != nil {
		start := U32(nil, first+3)
		b = append(append(b, 8, byte(len(start))), start...)
	}
	return section(b, 10, len(functions), code)
}
