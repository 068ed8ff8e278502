package meter

import "fmt"

// The opcodes that matter here (WebAssembly core 2.0, 5.4).
const (
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBrTable      = 0x0e
	opCall         = 0x10
	opCallIndirect = 0x11
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemoryGrow   = 0x40
	opNumeric      = 0xfc
)

// charge is a place where fuel is paid.
type charge struct {
	at   int   // offset in the body, after the instruction that opens the region
	cost int64 // of the region
}

func (m *module) meterCode() error {
	if !m.present[secCode] {
		return nil
	}
	r := &reader{raw: m.body[secCode]}
	n := r.count()
	if n > MaxFunctions {
		return refuse("functions must be at most %d, are %d", MaxFunctions, n)
	}
	out := appendU32(nil, n)
	for i := uint32(0); i < n && r.err == nil; i++ {
		body := r.bytes(r.u32())
		if r.err != nil {
			break
		}
		charges, err := m.walk(body)
		if err != nil {
			return refuse("function %d: %w", m.imports+i, err)
		}
		metered := m.insert(body, charges)
		out = appendU32(out, uint32(len(metered)))
		out = append(out, metered...)
	}
	if r.err == nil && r.more() {
		return refuse("code section: has %d bytes too many", len(r.raw)-r.at)
	}
	if r.err != nil {
		return refuse("code section: %w", r.err)
	}
	m.body[secCode] = out
	return nil
}

func (m *module) insert(body []byte, charges []charge) []byte {
	out := make([]byte, 0, len(body)+32*len(charges))
	from := 0
	for _, c := range charges {
		out = append(out, body[from:c.at]...)
		from = c.at
		out = m.appendPay(out, c.cost)
	}
	return append(out, body[from:]...)
}

// appendPay writes `fuel -= cost; if fuel < 0 { unreachable }`.
func (m *module) appendPay(out []byte, cost int64) []byte {
	fuel := appendU32(nil, m.globals)
	out = append(append(out, opGlobalGet), fuel...)
	out = appendS64(append(out, 0x42), cost)
	out = append(out, 0x7d) // i64.sub
	out = append(append(out, opGlobalSet), fuel...)
	out = append(append(out, opGlobalGet), fuel...)
	return append(out, 0x42, 0x00, 0x53, opIf, 0x40, 0x00, opEnd) // i64.const 0, i64.lt_s, if, unreachable
}

// walker goes over one function's instructions.
type walker struct {
	*reader
	m             *module
	charges       []charge
	region        int   // the charge that pays for the instruction at hand
	frames        []int // the region around each open block
	blocks, loops int
	targets       uint64
}

func (m *module) walk(body []byte) ([]charge, error) {
	r := &reader{raw: body}
	var locals uint64
	for n := r.count(); n > 0 && r.err == nil; n-- {
		locals += uint64(r.u32())
		r.valueType()
	}
	if locals > MaxLocals {
		return nil, fmt.Errorf("locals must be at most %d, are %d", MaxLocals, locals)
	}
	w := &walker{reader: r, m: m, charges: []charge{{at: r.at}}}
	open := true
	for open && r.err == nil {
		var err error
		if open, err = w.step(); err != nil {
			return nil, err
		}
	}
	if r.err == nil && r.more() {
		return nil, fmt.Errorf("has %d bytes after its end", len(r.raw)-r.at)
	}
	return w.charges, r.err
}

// step takes one instruction; open is false after the function's end.
func (w *walker) step() (open bool, err error) {
	op := w.byte()
	cost := &w.charges[w.region].cost
	*cost++
	switch {
	case op == opBlock, op == opIf, op == opLoop:
		w.blockType()
		if w.blocks++; w.blocks > MaxBlocks {
			return false, fmt.Errorf("blocks must be at most %d in one function", MaxBlocks)
		}
		if len(w.frames) == MaxNesting {
			return false, fmt.Errorf("blocks must be nested at most %d deep", MaxNesting)
		}
		w.frames = append(w.frames, w.region)
		if op == opLoop {
			if w.loops++; w.loops > MaxLoops {
				return false, fmt.Errorf("loops must be at most %d in one function", MaxLoops)
			}
			w.region = len(w.charges)
			w.charges = append(w.charges, charge{at: w.at})
		}
	case op == opEnd:
		if len(w.frames) == 0 {
			return false, nil
		}
		w.region = w.frames[len(w.frames)-1]
		w.frames = w.frames[:len(w.frames)-1]
	case op == opBrTable:
		n := w.u32()
		if w.targets += uint64(n); w.targets > MaxTargets {
			return false, fmt.Errorf("br_table targets must be at most %d in one function", MaxTargets)
		}
		for range n + 1 {
			w.u32()
		}
	case op == opCall:
		if f := w.u32(); f < w.m.imports {
			*cost += hostCost
		}
	case op == opCallIndirect:
		w.u32()
		w.u32()
		*cost += indirectCost
	case op == opGlobalGet, op == opGlobalSet:
		// The meter is the global after the module's own: a guest that names
		// it would fill its own tank.
		if g := w.u32(); w.err == nil && g >= w.m.globals {
			return false, fmt.Errorf("global %d is not there: the module has %d", g, w.m.globals)
		}
	case op == opMemoryGrow:
		w.oneOf("memory", 0)
		*cost += bulkCost
	case op == opNumeric:
		return true, w.numeric(cost)
	default:
		return true, w.plain(op)
	}
	return true, nil
}

// plain goes over the immediates of an instruction that only costs 1.
func (w *walker) plain(op byte) error {
	switch {
	case op <= 0x01, op == opElse, op == 0x0f, op == 0x1a, op == 0x1b, // unreachable, nop, else, return, drop, select
		op >= 0x45 && op <= 0xc4, op == 0xd1: // comparisons, arithmetic, conversions; ref.is_null
	case op == 0x0c, op == 0x0d, // br, br_if
		op >= 0x20 && op <= 0x22,           // local.get, set, tee
		op == 0x25, op == 0x26, op == 0xd2: // table.get, table.set, ref.func
		w.u32()
	case op == 0x1c: // select with types
		w.oneOf("number of types", 1)
		w.valueType()
	case op >= 0x28 && op <= 0x3e: // loads and stores: alignment, offset
		w.oneOf("alignment", 0, 1, 2, 3)
		w.u32()
	case op == 0x3f: // memory.size
		w.oneOf("memory", 0)
	case op == 0xd0: // ref.null
		w.refType()
	case op == 0x41: // i32.const
		w.skipLEB(5)
	case op == 0x42: // i64.const
		w.skipLEB(10)
	case op == 0x43: // f32.const
		w.bytes(4)
	case op == 0x44: // f64.const
		w.bytes(8)
	default:
		return fmt.Errorf("instruction 0x%02x at byte %d is not supported", op, w.at-1)
	}
	return nil
}

// numeric goes over an instruction with the prefix 0xfc.
func (w *walker) numeric(cost *int64) error {
	switch op := w.u32(); op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating conversions
		return nil
	case 9, 13, 16: // data.drop, elem.drop, table.size
		w.u32()
		return nil
	case 8, 10, 12, 14: // memory.init, memory.copy, table.init, table.copy
		w.u32()
		w.u32()
	case 11, 17: // memory.fill, table.fill
		w.u32()
	case 15: // unbounded in a table without a maximum
		return fmt.Errorf("instruction table.grow is not supported")
	default:
		return fmt.Errorf("instruction 0xfc %d at byte %d is not supported", op, w.at)
	}
	*cost += bulkCost
	return nil
}
