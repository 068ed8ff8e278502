package meter

import "fmt"

// check goes over every section but the code, so that what comes after us meets
// no length that its bytes do not bear out.
func (m *module) check(allowed func(Import) bool) error {
	readers := [sections]func(*reader) error{
		secType:      readTypes,
		secImport:    func(r *reader) error { return m.readImports(r, allowed) },
		secFunction:  readFunctions,
		secTable:     readTables,
		secMemory:    readMemory,
		secGlobal:    m.readGlobals,
		secExport:    m.readExports,
		secStart:     func(r *reader) error { r.u32(); return nil },
		secElement:   readElements,
		secData:      readData,
		secDataCount: readDataCount,
	}
	for _, id := range order {
		read := readers[id]
		if !m.present[id] || read == nil {
			continue
		}
		r := &reader{raw: m.body[id]}
		if err := read(r); err != nil {
			return refuse("%w", err)
		}
		if r.more() {
			r.fail(fmt.Errorf("has %d bytes too many", len(r.raw)-r.at))
		}
		if r.err != nil {
			return refuse("%s section: %w", sectionNames[id], r.err)
		}
	}
	return nil
}

func readTypes(r *reader) error {
	for n := r.count(); n > 0 && r.err == nil; n-- {
		r.oneOf("form of a type", 0x60) // a function
		for range 2 {                   // parameters, results
			for n := r.count(); n > 0 && r.err == nil; n-- {
				r.valueType()
			}
		}
	}
	return nil
}

func (m *module) readImports(r *reader, allowed func(Import) bool) error {
	for n := r.count(); n > 0; n-- {
		i := Import{Module: r.name(), Name: r.name()}
		kind := r.byte()
		if r.err != nil {
			return nil
		}
		if kind != 0 { // 0 is a function: a memory, table or global would be shared
			return fmt.Errorf("import %q.%q must be a function, is of kind %d", i.Module, i.Name, kind)
		}
		if !allowed(i) {
			return fmt.Errorf("import %q.%q is not allowed", i.Module, i.Name)
		}
		r.u32() // its type
		m.imports++
	}
	return nil
}

func readFunctions(r *reader) error {
	n := r.count()
	if n > MaxFunctions {
		return fmt.Errorf("functions must be at most %d, are %d", MaxFunctions, n)
	}
	for ; n > 0; n-- {
		r.u32()
	}
	return nil
}

// limits reads the minimum and maximum of a table or memory.
func (r *reader) limits() (low uint32) {
	flags := r.oneOf("limits", 0, 1)
	low = r.u32()
	if flags == 1 {
		r.u32()
	}
	return low
}

func readTables(r *reader) error {
	n := r.count()
	if n > MaxTables {
		return fmt.Errorf("tables must be at most %d, are %d", MaxTables, n)
	}
	for i := range n {
		r.refType()
		if low := r.limits(); low > MaxTable {
			return fmt.Errorf("table %d: minimum must be at most %d elements, is %d", i, MaxTable, low)
		}
	}
	return nil
}

func readMemory(r *reader) error {
	n := r.count()
	if n > 1 {
		return fmt.Errorf("memories must be at most 1, are %d", n)
	}
	for range n {
		if low := r.limits(); low > MaxPages {
			return fmt.Errorf("memory: minimum must be at most %d pages (%d KiB), is %d", MaxPages, MaxPages*64, low)
		}
	}
	return nil
}

func (m *module) readGlobals(r *reader) error {
	m.globals = r.count()
	m.globalsAt = r.at
	for n := m.globals; n > 0 && r.err == nil; n-- {
		r.valueType()
		r.oneOf("mutability", 0, 1)
		r.constExpr()
	}
	return nil
}

func (m *module) readExports(r *reader) error {
	m.exports = r.count()
	m.exportsAt = r.at
	for n := m.exports; n > 0 && r.err == nil; n-- {
		if name := r.name(); name == FuelExport {
			return fmt.Errorf("export %q is the engine's", name)
		}
		r.oneOf("kind of an export", 0, 1, 2, 3)
		r.u32()
	}
	return nil
}

// readElements knows the eight forms of WebAssembly core 2.0, 5.5.12.
func readElements(r *reader) error {
	for n := r.count(); n > 0 && r.err == nil; n-- {
		form := r.oneOf("form of elements", 0, 1, 2, 3, 4, 5, 6, 7)
		passive, explicit, expressions := form&1 != 0, form&2 != 0, form&4 != 0
		if !passive {
			if explicit {
				r.u32() // table
			}
			r.constExpr() // offset
		}
		switch {
		case !passive && !explicit: // functions, unsaid
		case expressions:
			r.refType()
		default:
			r.oneOf("kind of elements", 0)
		}
		count := r.count()
		if count > MaxFunctions {
			return fmt.Errorf("elements must be at most %d in one segment, are %d", MaxFunctions, count)
		}
		for ; count > 0 && r.err == nil; count-- {
			if expressions {
				r.constExpr()
			} else {
				r.u32()
			}
		}
	}
	return nil
}

func readData(r *reader) error {
	for n := r.count(); n > 0 && r.err == nil; n-- {
		switch r.oneOf("form of data", 0, 1, 2) {
		case 2:
			r.u32() // memory
			fallthrough
		case 0:
			r.constExpr() // offset
		}
		r.bytes(r.u32())
	}
	return nil
}

func readDataCount(r *reader) error {
	if n := r.u32(); n > MaxBytes {
		return fmt.Errorf("data segments must be at most %d, are %d", MaxBytes, n)
	}
	return nil
}

func (m *module) addGlobal(fuel int64) {
	out := appendU32(nil, m.globals+1)
	out = append(out, m.body[secGlobal][m.globalsAt:]...)
	out = append(out, 0x7e, 0x01, 0x42) // mutable i64, i64.const
	out = appendS64(out, fuel)
	m.body[secGlobal], m.present[secGlobal] = append(out, opEnd), true
}

func (m *module) addExport() {
	out := appendU32(nil, m.exports+1)
	out = append(out, m.body[secExport][m.exportsAt:]...)
	out = appendU32(out, uint32(len(FuelExport)))
	out = append(out, FuelExport...)
	out = append(out, 0x03) // a global
	m.body[secExport], m.present[secExport] = appendU32(out, m.globals), true
}
