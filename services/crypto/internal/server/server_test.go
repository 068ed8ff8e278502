package server_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	cryptov1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/crypto/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/keyring"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves the real keyring in memory.
func dial(t *testing.T) cryptov1.CryptoServiceClient {
	t.Helper()
	set, err := driver.NewSet(soft.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keys, err := keyring.Open(t.Context(), set, filepath.Join(dir, "keys"), filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		st, _ := fault.Status(err)
		return resp, st.Err()
	}
	return cryptov1.NewCryptoServiceClient(testkit.Serve(t,
		func(r grpc.ServiceRegistrar) { server.Register(r, keys, set) },
		grpc.UnaryInterceptor(kinds), grpc.MaxRecvMsgSize(4<<20), grpc.MaxSendMsgSize(4<<20)))
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRoundTrips(t *testing.T) {
	c, ctx := dial(t), within(t)
	for handle, kind := range map[string]cryptov1.KeyKind{"enc": cryptov1.KeyKind_KEY_KIND_SM4, "sig": cryptov1.KeyKind_KEY_KIND_SM2} {
		resp, err := c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: handle, Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		if k := resp.GetKey(); k.GetHandle() != handle || k.GetKind() != kind || k.GetVersion() != 1 || k.GetCreateTime() == nil {
			t.Errorf("CreateKey(%s) = %v", handle, k)
		}
	}
	list, err := c.ListKeys(ctx, &cryptov1.ListKeysRequest{})
	if err != nil || len(list.GetKeys()) != 2 || len(list.GetKeys()[0].GetPublicKey()) != 0 || len(list.GetKeys()[1].GetPublicKey()) != 65 {
		t.Fatalf("ListKeys = %v, %v, want enc without and sig with a public key", list, err)
	}
	sealed, err := c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "enc", Items: []*cryptov1.SealItem{
		{Plaintext: []byte("one"), AssociatedData: []byte("a")}, {},
	}})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := c.Open(ctx, &cryptov1.OpenRequest{KeyHandle: "enc", Items: []*cryptov1.OpenItem{
		{Box: sealed.GetBoxes()[0], AssociatedData: []byte("a")}, {Box: sealed.GetBoxes()[1]},
	}})
	if err != nil || string(opened.GetPlaintexts()[0]) != "one" || len(opened.GetPlaintexts()[1]) != 0 {
		t.Errorf("Open = %v, %v, want one and nothing", opened, err)
	}
	digest, err := c.Digest(ctx, &cryptov1.DigestRequest{Data: []byte("abc")})
	if want := "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"; err != nil || hex.EncodeToString(digest.GetDigest()) != want {
		t.Errorf("Digest(abc) = %x, %v, want %s", digest.GetDigest(), err, want)
	}
	signed, err := c.Sign(ctx, &cryptov1.SignRequest{KeyHandle: "sig", Message: []byte("m")})
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range []*cryptov1.VerifyRequest{
		{KeyHandle: "sig", Message: []byte("m"), Signature: signed.GetSignature()},
		{PublicKey: list.GetKeys()[1].GetPublicKey(), Message: []byte("m"), Signature: signed.GetSignature()},
	} {
		for message, want := range map[string]bool{"m": true, "n": false} {
			req.Message = []byte(message)
			if got, err := c.Verify(ctx, req); err != nil || got.GetValid() != want {
				t.Errorf("Verify(%v) = %v, %v, want %v", req, got, err, want)
			}
		}
	}
	if drivers, err := c.ListDrivers(ctx, &cryptov1.ListDriversRequest{}); err != nil || len(drivers.GetDrivers()) != 1 || !drivers.GetDrivers()[0].GetActive() {
		t.Errorf("ListDrivers = %v, %v, want soft, active", drivers, err)
	}
}

// The largest batch, sealed and as an answer, stays within a gRPC message.
func TestLargestBatch(t *testing.T) {
	c, ctx := dial(t), within(t)
	if _, err := c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "k", Kind: cryptov1.KeyKind_KEY_KIND_SM4}); err != nil {
		t.Fatal(err)
	}
	req := &cryptov1.SealRequest{KeyHandle: "k"}
	open := &cryptov1.OpenRequest{KeyHandle: "k"}
	for range 1024 {
		req.Items = append(req.Items, &cryptov1.SealItem{Plaintext: make([]byte, 3072)})
	}
	sealed, err := c.Seal(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range sealed.GetBoxes() {
		open.Items = append(open.Items, &cryptov1.OpenItem{Box: box})
	}
	opened, err := c.Open(ctx, open)
	if err != nil || len(opened.GetPlaintexts()) != 1024 {
		t.Errorf("Open(largest batch) = %d items, %v, want 1024", len(opened.GetPlaintexts()), err)
	}
}

func TestRefusals(t *testing.T) {
	c, ctx := dial(t), within(t)
	for handle, kind := range map[string]cryptov1.KeyKind{"enc": cryptov1.KeyKind_KEY_KIND_SM4, "sig": cryptov1.KeyKind_KEY_KIND_SM2} {
		if _, err := c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: handle, Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
	big := make([]byte, 1<<20+1)
	tests := []struct {
		name  string
		call  func() (proto.Message, error)
		want  codes.Code
		field string
	}{
		{"no kind", func() (proto.Message, error) {
			return c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "x"})
		}, codes.InvalidArgument, "kind"},
		{"unknown kind", func() (proto.Message, error) {
			return c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "x", Kind: 9})
		}, codes.InvalidArgument, "kind"},
		{"bad handle", func() (proto.Message, error) {
			return c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "a b", Kind: cryptov1.KeyKind_KEY_KIND_SM4})
		}, codes.InvalidArgument, "handle"},
		{"handle in use", func() (proto.Message, error) {
			return c.CreateKey(ctx, &cryptov1.CreateKeyRequest{Handle: "enc", Kind: cryptov1.KeyKind_KEY_KIND_SM4})
		}, codes.AlreadyExists, ""},
		{"page size", func() (proto.Message, error) {
			return c.ListKeys(ctx, &cryptov1.ListKeysRequest{PageSize: -1})
		}, codes.InvalidArgument, "page_size"},
		{"page token", func() (proto.Message, error) {
			return c.ListKeys(ctx, &cryptov1.ListKeysRequest{PageToken: "zz"})
		}, codes.InvalidArgument, "page_token"},
		{"seal nothing", func() (proto.Message, error) {
			return c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "enc"})
		}, codes.InvalidArgument, "items"},
		{"seal much", func() (proto.Message, error) {
			return c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "enc", Items: []*cryptov1.SealItem{{Plaintext: big}}})
		}, codes.InvalidArgument, "items[0].plaintext"},
		{"seal much aad", func() (proto.Message, error) {
			return c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "enc", Items: []*cryptov1.SealItem{{}, {AssociatedData: big[:1<<16+1]}}})
		}, codes.InvalidArgument, "items[1].associated_data"},
		{"seal with unknown key", func() (proto.Message, error) {
			return c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "x", Items: []*cryptov1.SealItem{{}}})
		}, codes.NotFound, ""},
		{"seal with signing key", func() (proto.Message, error) {
			return c.Seal(ctx, &cryptov1.SealRequest{KeyHandle: "sig", Items: []*cryptov1.SealItem{{}}})
		}, codes.FailedPrecondition, ""},
		{"open junk", func() (proto.Message, error) {
			return c.Open(ctx, &cryptov1.OpenRequest{KeyHandle: "enc", Items: []*cryptov1.OpenItem{{Box: bytes.Repeat([]byte{1}, 50)}}})
		}, codes.InvalidArgument, "items[0].box"},
		{"digest much", func() (proto.Message, error) {
			return c.Digest(ctx, &cryptov1.DigestRequest{Data: big})
		}, codes.InvalidArgument, "data"},
		{"sign with sealing key", func() (proto.Message, error) {
			return c.Sign(ctx, &cryptov1.SignRequest{KeyHandle: "enc"})
		}, codes.FailedPrecondition, ""},
		{"verify by neither", func() (proto.Message, error) {
			return c.Verify(ctx, &cryptov1.VerifyRequest{})
		}, codes.InvalidArgument, "public_key"},
		{"verify by both", func() (proto.Message, error) {
			return c.Verify(ctx, &cryptov1.VerifyRequest{KeyHandle: "sig", PublicKey: big[:65]})
		}, codes.InvalidArgument, "public_key"},
		{"verify off the curve", func() (proto.Message, error) {
			return c.Verify(ctx, &cryptov1.VerifyRequest{PublicKey: append([]byte{4}, big[:64]...)})
		}, codes.InvalidArgument, "public_key"},
		{"verify much", func() (proto.Message, error) {
			return c.Verify(ctx, &cryptov1.VerifyRequest{PublicKey: big[:65], Message: big})
		}, codes.InvalidArgument, "message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.call()
			if status.Code(err) != tt.want {
				t.Fatalf("error = %v, want %v", err, tt.want)
			}
			if got := firstField(err); got != tt.field {
				t.Errorf("field = %q, want %q; error %v", got, tt.field, err)
			}
		})
	}
}

func firstField(err error) string {
	for _, d := range status.Convert(err).Details() {
		if br, ok := d.(*errdetails.BadRequest); ok && len(br.GetFieldViolations()) > 0 {
			return br.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// sink adds up what Stats gives.
type sink map[string]float64

func (s sink) Counter(_ string, value float64, labels ...string) {
	s[labels[1]+" "+labels[3]] += value
}

// brokenKeys fails as a keyring does whose driver panicked.
type brokenKeys struct{ server.Keys }

func (brokenKeys) Seal(context.Context, string, []keyring.Item) ([][]byte, error) {
	return nil, driver.ErrBroken
}

func (brokenKeys) Open(_ context.Context, _ string, items []keyring.Item) ([][]byte, error) {
	return make([][]byte, len(items)), nil
}

func TestStatsCountItems(t *testing.T) {
	srv := server.Register(grpc.NewServer(), brokenKeys{}, nil)
	if _, err := srv.Seal(t.Context(), &cryptov1.SealRequest{Items: make([]*cryptov1.SealItem, 3)}); !errors.Is(err, driver.ErrBroken) {
		t.Errorf("Seal = %v, want ErrBroken", err)
	}
	if _, err := srv.Open(t.Context(), &cryptov1.OpenRequest{Items: make([]*cryptov1.OpenItem, 2)}); err != nil {
		t.Errorf("Open = %v", err)
	}
	got := sink{}
	srv.Stats(got)
	if got["seal failed"] != 3 || got["seal done"] != 0 || got["open done"] != 2 {
		t.Errorf("Stats = %v, want 3 seals failed and 2 opens done", got)
	}
}
