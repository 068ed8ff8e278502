package keyring

import (
	"bytes"
	"testing"
	"time"
)

// FuzzOpen holds that nothing opens but what Seal returned.
func FuzzOpen(f *testing.F) {
	p := newPlace(f)
	k, err := Open(f.Context(), p.crypto, p.dir, p.master)
	if err != nil {
		f.Fatal(err)
	}
	mustCreate(f, k, "k", KindSM4)
	box := mustSeal(f, k, "k", Item{Data: []byte("plain"), AAD: []byte("aad")})[0]
	f.Add(box, []byte("aad"))
	f.Add([]byte{}, []byte{})
	f.Add(box[:33], []byte("aad"))
	f.Add(append([]byte{1, 1, 0, 0, 0, 2}, box[6:]...), []byte("aad"))
	f.Fuzz(func(t *testing.T, data, aad []byte) {
		plain, err := k.Open(t.Context(), "k", []Item{{Data: data, AAD: aad}})
		if err == nil && !(bytes.Equal(data, box) && string(aad) == "aad") {
			t.Fatalf("Open(%x, %x) = %x, which was never sealed", data, aad, plain)
		}
		if err != nil && plain != nil {
			t.Fatalf("Open(%x) = %x with error %v", data, plain, err)
		}
	})
}

// FuzzFiles holds that no bytes in the folder's files make a panic or a key.
func FuzzFiles(f *testing.F) {
	p := newPlace(f)
	k, err := Open(f.Context(), p.crypto, p.dir, p.master)
	if err != nil {
		f.Fatal(err)
	}
	key, err := record{kind: KindSM4, version: 1, created: time.Unix(1, 0), secret: make([]byte, 16)}.seal(k.master, "k")
	if err != nil {
		f.Fatal(err)
	}
	reserved, err := sealReserved(k.master, "k", 1, 7)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key)
	f.Add(reserved)
	f.Add([]byte("XHK1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := openRecord(k.master, "k", 1, data); err == nil && !bytes.Equal(data, key) {
			t.Fatalf("openRecord(%x) = nil", data)
		}
		if _, err := openReserved(k.master, "k", 1, data); err == nil && !bytes.Equal(data, reserved) {
			t.Fatalf("openReserved(%x) = nil", data)
		}
	})
}
