package candbc_test

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.einride.tech/can"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/candbc"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/candump"
)

const file = `VERSION ""

NS_ :

BS_:

BU_: NODE

BO_ 645 WHEELS: 8 NODE
 SG_ WHEEL_SPEED_RR : 7|16@0+ (0.005,0) [0|65535] "KPH" NODE
 SG_ WHEEL_SPEED_RL : 23|16@0+ (0.005,0) [0|65535] "KPH" NODE

BO_ 2 STEERING: 5 NODE
 SG_ ANGLE : 0|16@1- (-0.1,0) [0|65535] "deg" NODE
 SG_ RATE : 16|8@1+ (1,-40) [0|255] "" NODE
 SG_ COUNTER : 32|4@1+ (1,0) [0|15] "" NODE

BO_ 2147484672 BATTERY: 8 NODE
 SG_ Page M : 0|2@1+ (1,0) [0|3] "" NODE
 SG_ Cell_Voltage m0 : 8|16@1+ (0.001,0) [0|0] "V" NODE
 SG_ Pack_Temp m1 : 8|8@1- (1,0) [0|0] "°C" NODE
 SG_ Odd__Unit_ m2 : 8|8@1+ (1,0) [0|0] "furlong/fortnight" NODE

BO_ 100 FLOATS: 8 NODE
 SG_ Small : 0|32@1- (2,1) [0|0] "A" NODE
 SG_ Wide : 39|32@0- (1,0) [0|0] "" NODE

BO_ 101 DOUBLE: 8 NODE
 SG_ Whole : 0|64@1- (1,0) [0|0] "" NODE

BO_ 102 GEARBOX: 1 NODE
 SG_ GEAR_SHIFTER : 5|3@0+ (1,0) [0|255] "" NODE
 SG_ SLOPE : 3|4@0- (1,0) [0|255] "%" NODE

VAL_ 102 GEAR_SHIFTER 4 "D" 3 "N" 2 "R" 1 "P" ;
VAL_ 102 SLOPE -1 "down" ;
SIG_VALTYPE_ 100 Small : 1;
SIG_VALTYPE_ 101 Whole : 2;
`

func compiled(t testing.TB) *candbc.Database {
	t.Helper()
	db, err := candbc.Compile([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func num(name string, v float64) protocol.Value { return protocol.Value{Name: name, Number: v} }

func TestDecode(t *testing.T) {
	db := compiled(t)
	wheels := []protocol.Value{num("wheel_speed_rr_kilometres_per_hour", 38), num("wheel_speed_rl_kilometres_per_hour", 37.5)}
	float := math.Float32bits(1.5)
	double := math.Float64bits(-2.25)
	le := func(v uint64, n uint) (d can.Data) {
		for i := range n {
			d[i] = byte(v >> (8 * i))
		}
		return d
	}
	for name, tt := range map[string]struct {
		frame can.Frame
		want  []protocol.Value
	}{
		"big-endian":                        {can.Frame{ID: 645, Length: 8, Data: can.Data{0x1D, 0xB0, 0x1D, 0x4C}}, wheels},
		"standard written as extended":      {can.Frame{ID: 645, IsExtended: true, Length: 8, Data: can.Data{0x1D, 0xB0, 0x1D, 0x4C}}, wheels},
		"short":                             {can.Frame{ID: 645, Length: 3, Data: can.Data{0x1D, 0xB0, 0x1D}}, wheels[:1]},
		"remote":                            {can.Frame{ID: 645, IsRemote: true, Length: 8}, nil},
		"signed, and outside its range":     {can.Frame{ID: 2, Length: 5, Data: can.Data{0x64, 0x00, 0x0A, 0, 0xF3}}, []protocol.Value{num("angle_degrees", -10), num("rate", -30), num("counter", 3)}},
		"signed, negative":                  {can.Frame{ID: 2, Length: 2, Data: can.Data{0xFF, 0xFF}}, []protocol.Value{num("angle_degrees", 0.1)}},
		"multiplexed, page 0":               {can.Frame{ID: 1024, IsExtended: true, Length: 8, Data: can.Data{0, 0x10, 0x0E}}, []protocol.Value{num("page", 0), num("cell_voltage_volts", 3.6)}},
		"multiplexed, page 1":               {can.Frame{ID: 1024, IsExtended: true, Length: 8, Data: can.Data{1, 0xF6}}, []protocol.Value{num("page", 1), num("pack_temp_celsius", -10)}},
		"multiplexed, page 2, unknown unit": {can.Frame{ID: 1024, IsExtended: true, Length: 8, Data: can.Data{2, 5}}, []protocol.Value{num("page", 2), num("odd_unit_furlong_fortnight", 5)}},
		"multiplexed, no such page":         {can.Frame{ID: 1024, IsExtended: true, Length: 8, Data: can.Data{3, 5}}, []protocol.Value{num("page", 3)}},
		"float":                             {can.Frame{ID: 100, Length: 4, Data: le(uint64(float), 4)}, []protocol.Value{num("small_amperes", 4)}},
		"double":                            {can.Frame{ID: 101, Length: 8, Data: le(double, 8)}, []protocol.Value{num("whole", -2.25)}},
		"named numbers":                     {can.Frame{ID: 102, Length: 1, Data: can.Data{0x2F}}, []protocol.Value{num("gear_shifter", 5), num("slope_percent", -1), {Name: "slope_name", Text: "down"}}},
	} {
		m, ok := db.Message(&tt.frame)
		if !ok {
			t.Errorf("%s: no message", name)
			continue
		}
		if got := m.Append(nil, &tt.frame); !slices.EqualFunc(got, tt.want, close) || len(got) > m.MaxValues() {
			t.Errorf("%s = %+v, want %+v", name, got, tt.want)
		}
	}
	for _, f := range []can.Frame{{ID: 646}, {ID: 1024}, {ID: 4096, IsExtended: true}} {
		if m, ok := db.Message(&f); ok {
			t.Errorf("Message(%v) = %v, want none", f, m.Name)
		}
	}
}

// close is equal to within what 0.005 loses as a float.
func close(a, b protocol.Value) bool {
	return a.Name == b.Name && a.Text == b.Text && math.Abs(a.Number-b.Number) < 1e-9
}

func TestCompileRefuses(t *testing.T) {
	message := func(signals ...string) string {
		return "BO_ 1 M: 8 N\n SG_ " + strings.Join(signals, "\n SG_ ") + "\n"
	}
	const good = `A : 0|8@1+ (1,0) [0|0] "" N`
	if _, err := candbc.Compile([]byte(message(good))); err != nil {
		t.Fatal(err)
	}
	for says, in := range map[string]string{
		"no messages":     "",
		"dbc:1":           "BO_ x",
		"at most 8388608": strings.Repeat(" ", candbc.MaxFile+1),
		"used twice":      message(good) + message(good),
		"CAN FD":          `BO_ 1 M: 64 N` + "\n",
		"bit 64":          message(`A : 64|1@1+ (1,0) [0|0] "" N`),
		"has 65":          message(`A : 0|65@1+ (1,0) [0|0] "" N`),
		"has 0":           message(`A : 0|0@1+ (1,0) [0|0] "" N`),
		"within 64":       message(`A : 57|8@1+ (1,0) [0|0] "" N`),
		"from bit 62":     message(`A : 62|8@0+ (1,0) [0|0] "" N`),
		"scale":           message(`A : 0|8@1+ (0,0) [0|0] "" N`),
		"another":         message(good, `a : 8|8@1+ (1,0) [0|0] "" N`),
		"without a":       message(`A m1 : 0|8@1+ (1,0) [0|0] "" N`),
		"second":          message(`A M : 0|8@1+ (1,0) [0|0] "" N`, `B M : 8|8@1+ (1,0) [0|0] "" N`),
		"64 bytes":        message(strings.Repeat("A", 60) + ` : 0|8@1+ (1,0) [0|0] "volts" N`),
		"a float":         message(good) + "SIG_VALTYPE_ 1 A : 1;\n",
		"no such signal":  message(good) + "SIG_VALTYPE_ 1 B : 1;\n",
		"of its names":    message(good, `A_NAME : 8|8@1+ (1,0) [0|0] "" N`) + `VAL_ 1 A 1 "x" ;` + "\n",
		"256":             message(good) + `VAL_ 1 A 1 "` + strings.Repeat("x", 257) + "\" ;\n",
	} {
		if db, err := candbc.Compile([]byte(in)); !errors.Is(err, candbc.ErrFile) || !strings.Contains(err.Error(), says) {
			t.Errorf("Compile(%.80q) = %v, %v, want one that says %q", in, db, err, says)
		}
	}
}

func TestLatin1(t *testing.T) {
	db, err := candbc.Compile([]byte("BO_ 1 M: 8 N\n SG_ T : 0|8@1- (1,0) [0|0] \"\xB0C\" N\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := can.Frame{ID: 1, Length: 1, Data: can.Data{0xFF}}
	m, _ := db.Message(&f)
	if got := m.Append(nil, &f); len(got) != 1 || got[0] != num("t_celsius", -1) {
		t.Errorf("Append = %+v, want t_celsius -1", got)
	}
}

// sharedFile returns a file of the data that lies beside the repository, or
// skips.
func sharedFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "..", "..", "shared", "data", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("shared data %s is absent", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRecordedDrive decodes a recorded log with the DBC file of the car.
func TestRecordedDrive(t *testing.T) {
	log := sharedFile(t, "candump_demo.log")
	db, err := candbc.Compile(sharedFile(t, "nissan_leaf_2018.dbc"))
	if err != nil {
		t.Fatal(err)
	}
	r := candump.NewReader(strings.NewReader(string(log)))
	var (
		rec     candump.Record
		values  []protocol.Value
		first   []protocol.Value
		frames  int
		wheels  int
		unknown int
	)
	for {
		if err := r.Next(&rec); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		frames++
		m, ok := db.Message(&rec.Frame)
		if !ok {
			unknown++
			continue
		}
		values = m.Append(values[:0], &rec.Frame)
		for _, v := range values {
			if !protocol.IsName(v.Name) {
				t.Fatalf("%s: name %q", m.Name, v.Name)
			}
			if strings.HasPrefix(v.Name, "wheel_speed_r") && (v.Number < 0 || v.Number > 200) {
				t.Errorf("%s = %v km/h", v.Name, v.Number)
			}
		}
		if m.Name == "wheel_speeds_rear" {
			if wheels++; wheels == 1 {
				first = slices.Clone(values)
			}
		}
	}
	if frames != 421 || wheels != 412 || unknown != 0 {
		t.Errorf("%d frames, %d of the wheels, %d unknown, want 421, 412 and none", frames, wheels, unknown)
	}
	want := []protocol.Value{num("wheel_speed_rr_kilometres_per_hour", 38), num("wheel_speed_rl_kilometres_per_hour", 38)}
	if !slices.EqualFunc(first, want, close) {
		t.Errorf("first frame of the wheels = %+v, want %+v", first, want)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	db := compiled(t)
	values := make([]protocol.Value, 0, 8)
	f := can.Frame{ID: 102, Length: 1, Data: can.Data{0x2F}}
	if got := testing.AllocsPerRun(100, func() {
		m, _ := db.Message(&f)
		values = m.Append(values[:0], &f)
	}); got != 0 {
		t.Errorf("a frame allocates %v times, want 0", got)
	}
}

func BenchmarkAppend(b *testing.B) {
	db := compiled(b)
	values := make([]protocol.Value, 0, 8)
	f := can.Frame{ID: 645, Length: 8, Data: can.Data{0x1D, 0xB0, 0x1D, 0xB0}}
	b.ReportAllocs()
	for b.Loop() {
		m, _ := db.Message(&f)
		values = m.Append(values[:0], &f)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
}

// FuzzCompile holds that no file breaks the compiler, and that what it takes
// gives few values with legal, distinct names for any frame.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(file), uint32(645), []byte{0x1D, 0xB0, 0x1D, 0xB0})
	f.Add([]byte("BO_ 1 M: 8 N\n SG_ A : 7|64@0- (1,0) [0|0] \"%\" N\nVAL_ 1 A -1 \"x\" ;"), uint32(1), []byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, file []byte, id uint32, data []byte) {
		db, err := candbc.Compile(file)
		if err != nil {
			if !errors.Is(err, candbc.ErrFile) {
				t.Fatalf("Compile: %v", err)
			}
			return
		}
		frame := can.Frame{ID: id & can.MaxExtendedID, IsExtended: id > can.MaxID}
		frame.Length = uint8(copy(frame.Data[:], data))
		m, ok := db.Message(&frame)
		if !ok {
			return
		}
		values := m.Append(nil, &frame)
		if len(values) > m.MaxValues() {
			t.Fatalf("%d values of at most %d", len(values), m.MaxValues())
		}
		seen := map[string]bool{}
		for _, v := range values {
			if !protocol.IsName(v.Name) || len(v.Text) > 256 || seen[v.Name] {
				t.Fatalf("value %+v", v)
			}
			seen[v.Name] = true
		}
	})
}
