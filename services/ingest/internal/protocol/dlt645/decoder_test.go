package dlt645_test

import (
	"bytes"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol/dlt645"
)

// decode feeds raw in chunks of the given size and returns each frame built
// again.
func decode(t testing.TB, d *dlt645.Decoder, raw []byte, chunk int) [][]byte {
	t.Helper()
	var frames [][]byte
	var f dlt645.Frame
	take := func() {
		again, err := dlt645.AppendFrame(nil, f.Address, f.Control, f.Data()...)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, again)
	}
	for len(raw) > 0 {
		p := raw[:min(chunk, len(raw))]
		raw = raw[len(p):]
		for len(p) > 0 {
			n := d.Feed(p)
			if n == 0 {
				t.Fatal("Feed took nothing after Next was false")
			}
			p = p[n:]
			for d.Next(&f) {
				take()
			}
		}
	}
	for d.Salvage(&f) {
		take()
	}
	return frames
}

func TestDecoderResynchronises(t *testing.T) {
	a, b := unhex(t, telegrams[0].raw)[4:], unhex(t, telegrams[2].raw)
	broken := bytes.Clone(a)
	broken[12]++
	for name, tt := range map[string]struct {
		raw   []byte
		want  int
		stats dlt645.Stats
	}{
		"two in a row":         {bytes.Join([][]byte{a, b}, nil), 2, dlt645.Stats{Frames: 2}},
		"wake-up between":      {bytes.Join([][]byte{a, {0xFE, 0xFE}, b}, nil), 2, dlt645.Stats{Frames: 2}},
		"noise before":         {bytes.Join([][]byte{{0x00, 0x68, 0x16}, b}, nil), 1, dlt645.Stats{Frames: 1, NoiseBytes: 3}},
		"doubled start":        {bytes.Join([][]byte{{0x68}, b}, nil), 1, dlt645.Stats{Frames: 1, NoiseBytes: 1}},
		"wrong sum, then good": {bytes.Join([][]byte{broken, b}, nil), 1, dlt645.Stats{Frames: 1, WrongChecksums: 1, NoiseBytes: uint64(len(a))}},
		"half, then good":      {bytes.Join([][]byte{a[:11], b}, nil), 1, dlt645.Stats{Frames: 1, NoiseBytes: 11}},
		// What looks like the start of 200 bytes hides a frame until the silence.
		"false start of a long one": {bytes.Join([][]byte{unhex(t, "6811111111111168 91 c8"), b}, nil), 1, dlt645.Stats{Frames: 1, NoiseBytes: 10}},
	} {
		for _, chunk := range []int{1, 7, 1000} {
			var d dlt645.Decoder
			got := decode(t, &d, tt.raw, chunk)
			if len(got) != tt.want || d.Stats() != tt.stats {
				t.Errorf("%s in chunks of %d: %d frames, %+v, want %d, %+v", name, chunk, len(got), d.Stats(), tt.want, tt.stats)
			}
		}
	}
}

func TestDecoderReset(t *testing.T) {
	var d dlt645.Decoder
	var f dlt645.Frame
	d.Feed(unhex(t, telegrams[2].raw)[:9])
	d.Reset()
	if d.Next(&f) || d.Stats().NoiseBytes != 9 {
		t.Errorf("after Reset: %+v, want 9 bytes of noise and no frame", d.Stats())
	}
	d.Feed(unhex(t, telegrams[2].raw))
	if !d.Next(&f) {
		t.Error("no frame after Reset")
	}
}

func FuzzDecoder(f *testing.F) {
	for _, tt := range telegrams {
		f.Add(unhex(f, tt.raw), uint8(1))
		f.Add(append(unhex(f, tt.raw), unhex(f, telegrams[1].raw)...), uint8(5))
	}
	f.Add(unhex(f, "68116811111111681168c8fefe6868"), uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, chunk uint8) {
		var one, many dlt645.Decoder
		got, want := decode(t, &one, raw, int(chunk)+1), decode(t, &many, raw, len(raw)+1)
		if len(got) != len(want) || one.Stats() != many.Stats() {
			t.Fatalf("chunks of %d: %d frames, %+v; at once: %d frames, %+v", chunk+1, len(got), one.Stats(), len(want), many.Stats())
		}
		taken := int(one.Stats().NoiseBytes)
		for i, frame := range got {
			if !bytes.Equal(frame, want[i]) || !bytes.Contains(raw, frame) {
				t.Fatalf("frame %d is % x in chunks, % x at once; raw % x", i, frame, want[i], raw)
			}
			taken += len(frame)
		}
		if wakeUps := len(raw) - taken; wakeUps < 0 || wakeUps > bytes.Count(raw, []byte{0xFE}) {
			t.Fatalf("%d bytes in frames and noise of %d with %d wake-up bytes", taken, len(raw), bytes.Count(raw, []byte{0xFE}))
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	raw := unhex(t, telegrams[0].raw)
	item, err := dlt645.Lookup(0x00000000)
	if err != nil {
		t.Fatal(err)
	}
	var d dlt645.Decoder
	var f dlt645.Frame
	values := make([]protocol.Value, 0, 4)
	request := make([]byte, 0, dlt645.MaxFrame)
	if got := testing.AllocsPerRun(100, func() {
		d.Feed(raw)
		if !d.Next(&f) {
			t.Fatal("no frame")
		}
		if values, err = item.AppendReply(values[:0], &f); err != nil {
			t.Fatal(err)
		}
		request = dlt645.AppendReadFollowUp(request[:0], f.Address, item.DI, 1)
	}); got != 0 {
		t.Errorf("a frame allocates %v times, want 0", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := unhex(b, telegrams[0].raw)
	item, err := dlt645.Lookup(0x00000000)
	if err != nil {
		b.Fatal(err)
	}
	values := make([]protocol.Value, 0, 4)
	var f dlt645.Frame
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := dlt645.Parse(raw, &f); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
	})
	b.Run("parse_values", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := dlt645.Parse(raw, &f); err != nil {
				b.Fatal(err)
			}
			if values, err = item.AppendReply(values[:0], &f); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
	})
	b.Run("stream_values", func(b *testing.B) {
		var d dlt645.Decoder
		b.ReportAllocs()
		for b.Loop() {
			d.Feed(raw)
			for d.Next(&f) {
				if values, err = item.AppendReply(values[:0], &f); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
	})
}
