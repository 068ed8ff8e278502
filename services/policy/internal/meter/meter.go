// Package meter rewrites a WebAssembly module so that it pays for what it runs,
// and refuses shapes that would cost its host more than they look.
//
// Why not a deadline: compiled guest code cannot be preempted, so a loop in it
// holds a thread, and with it every garbage collection of the process. wazero's
// own answer (WithCloseOnContextDone) leaves the guest at each loop iteration,
// about 20 times the cost of a small loop, and starts a goroutine for each
// call. A counter in the guest costs a few instructions a loop and a call,
// allocates nothing, and stops at the same instruction on every architecture.
//
// What is paid: the module gets one more global, a signed 64-bit count exported
// as FuelExport. On entering a function, and at each pass of a loop's head, the
// guest pays for all the instructions that can run before the next such point:
// those of the function or loop, without the loops inside it. Branches go
// forwards except to a loop's head, so this is an upper bound of what runs.
// When the count falls below 0 the guest traps (`unreachable`).
package meter

import (
	"errors"
	"fmt"
)

// FuelExport is the exported global with what is left. The host sets it before
// each call; below 0 after a trap means that it ran out.
const FuelExport = "xh_fuel"

// What one instruction costs in fuel where it is not 1.
const (
	// bulkCost is for instructions over up to 4 MiB of memory (memory.fill,
	// memory.copy, memory.init, memory.grow and the table forms): about 16,384
	// simple instructions.
	bulkCost = 1 << 14
	// hostCost is for a call to an imported function, indirectCost for one
	// through a table, which may be imported.
	hostCost     = 256
	indirectCost = 16
)

// Limits of a module. Compilation is not bounded by fuel, and wazero's memory
// limit knows no tables: these keep both small.
const (
	MaxBytes     = 128 << 10
	MaxPages     = 64 // of 64 KiB: 4 MiB
	MaxTable     = 1024
	MaxTables    = 4
	MaxFunctions = 4096
	MaxLocals    = 1024 // of one function
	MaxNesting   = 64   // of blocks in one function
	MaxBlocks    = 1024 // of one function
	MaxLoops     = 256  // of one function
	MaxTargets   = 1024 // of all br_table of one function
)

// Import is a function that a module asks its host for.
type Import struct{ Module, Name string }

// ErrRefused is wrapped by every error of this package.
var ErrRefused = errors.New("module refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	sections
)

// order is that of the sections in a module (WebAssembly core 2.0, 5.5.2).
var order = [...]byte{
	secType, secImport, secFunction, secTable, secMemory, secGlobal,
	secExport, secStart, secElement, secDataCount, secCode, secData,
}

var sectionNames = [sections]string{
	"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count",
}

type module struct {
	body    [sections][]byte
	present [sections]bool

	// What the sections say. Globals are the module's own: imported ones are
	// refused. Offsets are those of the first element, after the count.
	imports, globals, exports uint32
	globalsAt, exportsAt      int
}

// Inject returns the module with its meter, full with fuel until the host sets
// it (so that a start function is metered too). Every import must be allowed.
// Custom sections are left out: no debug information is parsed for a guest. The
// result still has to be validated: Inject reads the shape of a module, not its
// types.
func Inject(wasm []byte, fuel int64, allowed func(Import) bool) ([]byte, error) {
	if len(wasm) > MaxBytes {
		return nil, refuse("size must be at most %d bytes, is %d", MaxBytes, len(wasm))
	}
	m, err := split(wasm)
	if err != nil {
		return nil, err
	}
	if err := m.check(allowed); err != nil {
		return nil, err
	}
	m.addGlobal(fuel)
	m.addExport()
	if err := m.meterCode(); err != nil {
		return nil, err
	}
	return m.join(), nil
}

func split(wasm []byte) (*module, error) {
	const magic = "\x00asm\x01\x00\x00\x00"
	if len(wasm) < len(magic) || string(wasm[:len(magic)]) != magic {
		return nil, refuse("not a WebAssembly 1.0 binary: must start with %q", magic)
	}
	m := new(module)
	r := &reader{raw: wasm, at: len(magic)}
	next := 0
	for r.more() {
		id := r.byte()
		body := r.bytes(r.u32())
		if r.err != nil {
			return nil, refuse("section %d: %w", id, r.err)
		}
		if id == secCustom {
			continue
		}
		for next < len(order) && order[next] != id {
			next++
		}
		if next == len(order) {
			return nil, refuse("section %d is unknown, twice there or out of order", id)
		}
		next++
		m.body[id], m.present[id] = body, true
	}
	return m, nil
}

func (m *module) join() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, id := range order {
		if !m.present[id] {
			continue
		}
		out = append(out, id)
		out = appendU32(out, uint32(len(m.body[id])))
		out = append(out, m.body[id]...)
	}
	return out
}
