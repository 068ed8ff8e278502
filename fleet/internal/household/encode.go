package household

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
)

// Encoder writes DeviceFrames with readings. The values of a row are encoded
// when the encoder is made; a frame then costs a copy and two numbers a
// reading, so that 128 meters cost less than what they measure. It may be used
// by many goroutines.
type Encoder struct {
	json bool
	rows [][2][]byte // by row, then 0 normal and 1 hot
}

// NewEncoder encodes rows as protobuf, or as protojson.
func NewEncoder(rows []Row, json bool) (*Encoder, error) {
	if len(rows) == 0 {
		return nil, errors.New("encode rows: there are none")
	}
	e := &Encoder{json: json, rows: make([][2][]byte, len(rows))}
	for i, row := range rows {
		for j := range 2 {
			var err error
			if e.rows[i][j], err = encode(row, j == 1, json); err != nil {
				return nil, fmt.Errorf("encode row %d: %w", i, err)
			}
		}
	}
	return e, nil
}

func encode(row Row, isHot, json bool) ([]byte, error) {
	if !json {
		// Encoded messages laid end to end are the encoding of their merger
		// (protobuf's encoding specification), so these bytes may follow those
		// of sequence and time.
		return proto.Marshal(row.Reading(isHot))
	}
	text, err := protojson.Marshal(row.Reading(isHot))
	if err != nil {
		return nil, err
	}
	return text[1:], nil // without `{`: sequence and time go before it
}

// Rows returns how many rows there are to replay.
func (e *Encoder) Rows() int { return len(e.rows) }

// Item is one reading of a frame.
type Item struct {
	Sequence uint64
	Time     int64 // Unix time in ns
	Row      int   // 0 to Rows()-1
	Hot      bool
}

// Append appends a DeviceFrame with items to dst. Only what grows dst
// allocates.
func (e *Encoder) Append(dst []byte, items []Item) []byte {
	if e.json {
		return e.appendJSON(dst, items)
	}
	batch := 0
	for _, it := range items {
		batch += sizeField(e.sizeReading(it))
	}
	const readings = 2 // DeviceFrame.readings
	dst = protowire.AppendTag(dst, readings, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(batch))
	for _, it := range items {
		dst = protowire.AppendTag(dst, 1, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(e.sizeReading(it)))
		dst = protowire.AppendTag(dst, 1, protowire.VarintType)
		dst = protowire.AppendVarint(dst, it.Sequence)
		seconds, nanos := stamp(it.Time)
		dst = protowire.AppendTag(dst, 2, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(sizeStamp(seconds, nanos)))
		dst = protowire.AppendTag(dst, 1, protowire.VarintType)
		dst = protowire.AppendVarint(dst, seconds)
		dst = protowire.AppendTag(dst, 2, protowire.VarintType)
		dst = protowire.AppendVarint(dst, nanos)
		dst = append(dst, e.values(it)...)
	}
	return dst
}

func (e *Encoder) values(it Item) []byte {
	if it.Hot {
		return e.rows[it.Row][1]
	}
	return e.rows[it.Row][0]
}

func (e *Encoder) sizeReading(it Item) int {
	seconds, nanos := stamp(it.Time)
	return 1 + protowire.SizeVarint(it.Sequence) + sizeField(sizeStamp(seconds, nanos)) + len(e.values(it))
}

func stamp(ns int64) (seconds, nanos uint64) {
	return uint64(ns / int64(time.Second)), uint64(ns % int64(time.Second))
}

func sizeStamp(seconds, nanos uint64) int {
	return 2 + protowire.SizeVarint(seconds) + protowire.SizeVarint(nanos)
}

// sizeField is the size of a field of n bytes with a number below 16.
func sizeField(n int) int { return 1 + protowire.SizeBytes(n) }

func (e *Encoder) appendJSON(dst []byte, items []Item) []byte {
	dst = append(dst, `{"readings":{"readings":[`...)
	for i, it := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"sequence":"`...)
		dst = strconv.AppendUint(dst, it.Sequence, 10)
		dst = append(dst, `","time":"`...)
		dst = time.Unix(0, it.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, `",`...)
		dst = append(dst, e.values(it)...)
	}
	return append(dst, `]}}`...)
}

// Marshal encodes any frame in the encoder's form; the frame without readings
// that a meter seldom sends.
func (e *Encoder) Marshal(f *devicev1.DeviceFrame) ([]byte, error) {
	if e.json {
		return protojson.Marshal(f)
	}
	return proto.Marshal(f)
}

// Unmarshal decodes a frame from the node. A field that is not known is left
// out, so that older meters understand a newer node.
func (e *Encoder) Unmarshal(raw []byte, f *devicev1.NodeFrame) error {
	if e.json {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, f)
	}
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, f)
}
