// Package server translates xinghuo.crypto.v1 to the keyring and the drivers.
package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	cryptov1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/crypto/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/keyring"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/limit"
)

// Keys is what the server needs of the keyring.
type Keys interface {
	Create(ctx context.Context, handle string, kind keyring.Kind) (keyring.Key, error)
	List(size int, token string) (keys []keyring.Key, next string, err error)
	Seal(ctx context.Context, handle string, items []keyring.Item) ([][]byte, error)
	Open(ctx context.Context, handle string, items []keyring.Item) ([][]byte, error)
	Sign(handle string, message []byte) ([]byte, error)
	Verify(handle string, message, signature []byte) (bool, error)
}

// Drivers is what the server needs of the algorithms, for what takes no key of
// the keyring.
type Drivers interface {
	Members() []driver.Member
	DigestSM3(data []byte) ([driver.SM3Size]byte, error)
	VerifySM2(public, message, signature []byte) (bool, error)
}

// Server implements CryptoService.
type Server struct {
	cryptov1.UnimplementedCryptoServiceServer

	keys    Keys
	drivers Drivers
	stats   stats
}

// Register puts the service on r and returns it, for its Stats.
func Register(r grpc.ServiceRegistrar, keys Keys, drivers Drivers) *Server {
	s := &Server{keys: keys, drivers: drivers}
	cryptov1.RegisterCryptoServiceServer(r, s)
	return s
}

// ListDrivers implements CryptoServiceServer.
func (s *Server) ListDrivers(context.Context, *cryptov1.ListDriversRequest) (*cryptov1.ListDriversResponse, error) {
	resp := &cryptov1.ListDriversResponse{}
	for _, m := range s.drivers.Members() {
		d := &cryptov1.Driver{Name: m.Driver.Name(), Implementation: m.Driver.Implementation(), Active: m.Active}
		for _, c := range driver.Capabilities(m.Driver) {
			d.Capabilities = append(d.Capabilities, string(c))
		}
		resp.Drivers = append(resp.Drivers, d)
	}
	return resp, nil
}

// CreateKey implements CryptoServiceServer.
func (s *Server) CreateKey(ctx context.Context, req *cryptov1.CreateKeyRequest) (*cryptov1.CreateKeyResponse, error) {
	var kind keyring.Kind
	switch req.GetKind() {
	case cryptov1.KeyKind_KEY_KIND_SM4:
		kind = keyring.KindSM4
	case cryptov1.KeyKind_KEY_KIND_SM2:
		kind = keyring.KindSM2
	case cryptov1.KeyKind_KEY_KIND_UNSPECIFIED:
		fallthrough
	default:
		return nil, fault.Invalid("kind", "must be KEY_KIND_SM4 or KEY_KIND_SM2, is %v", req.GetKind())
	}
	key, err := s.keys.Create(ctx, req.GetHandle(), kind)
	if err != nil {
		return nil, err
	}
	return &cryptov1.CreateKeyResponse{Key: keyMessage(key)}, nil
}

// ListKeys implements CryptoServiceServer.
func (s *Server) ListKeys(_ context.Context, req *cryptov1.ListKeysRequest) (*cryptov1.ListKeysResponse, error) {
	keys, next, err := s.keys.List(int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &cryptov1.ListKeysResponse{NextPageToken: next}
	for _, key := range keys {
		resp.Keys = append(resp.Keys, keyMessage(key))
	}
	return resp, nil
}

// Seal implements CryptoServiceServer.
func (s *Server) Seal(ctx context.Context, req *cryptov1.SealRequest) (*cryptov1.SealResponse, error) {
	items := make([]keyring.Item, len(req.GetItems()))
	for i, item := range req.GetItems() {
		items[i] = keyring.Item{Data: item.GetPlaintext(), AAD: item.GetAssociatedData()}
	}
	boxes, err := s.keys.Seal(ctx, req.GetKeyHandle(), items)
	s.stats.seal.count(len(items), err)
	if err != nil {
		return nil, err
	}
	return &cryptov1.SealResponse{Boxes: boxes}, nil
}

// Open implements CryptoServiceServer.
func (s *Server) Open(ctx context.Context, req *cryptov1.OpenRequest) (*cryptov1.OpenResponse, error) {
	items := make([]keyring.Item, len(req.GetItems()))
	for i, item := range req.GetItems() {
		items[i] = keyring.Item{Data: item.GetBox(), AAD: item.GetAssociatedData()}
	}
	plain, err := s.keys.Open(ctx, req.GetKeyHandle(), items)
	s.stats.open.count(len(items), err)
	if err != nil {
		return nil, err
	}
	return &cryptov1.OpenResponse{Plaintexts: plain}, nil
}

// Digest implements CryptoServiceServer.
func (s *Server) Digest(_ context.Context, req *cryptov1.DigestRequest) (*cryptov1.DigestResponse, error) {
	if err := limit.Size("data", len(req.GetData()), limit.MaxData); err != nil {
		return nil, err
	}
	digest, err := s.drivers.DigestSM3(req.GetData())
	s.stats.digest.count(1, err)
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	return &cryptov1.DigestResponse{Digest: digest[:]}, nil
}

// Sign implements CryptoServiceServer.
func (s *Server) Sign(_ context.Context, req *cryptov1.SignRequest) (*cryptov1.SignResponse, error) {
	signature, err := s.keys.Sign(req.GetKeyHandle(), req.GetMessage())
	s.stats.sign.count(1, err)
	if err != nil {
		return nil, err
	}
	return &cryptov1.SignResponse{Signature: signature}, nil
}

// Verify implements CryptoServiceServer.
func (s *Server) Verify(_ context.Context, req *cryptov1.VerifyRequest) (*cryptov1.VerifyResponse, error) {
	valid, err := s.verify(req)
	s.stats.verify.count(1, err)
	if err != nil {
		return nil, err
	}
	return &cryptov1.VerifyResponse{Valid: valid}, nil
}

func (s *Server) verify(req *cryptov1.VerifyRequest) (bool, error) {
	byHandle, byKey := req.GetKeyHandle() != "", len(req.GetPublicKey()) > 0
	if byHandle == byKey {
		return false, fault.Invalid("public_key", "must be given or key_handle must, and not both")
	}
	if byHandle {
		return s.keys.Verify(req.GetKeyHandle(), req.GetMessage(), req.GetSignature())
	}
	if err := limit.Size("message", len(req.GetMessage()), limit.MaxData); err != nil {
		return false, err
	}
	valid, err := s.drivers.VerifySM2(req.GetPublicKey(), req.GetMessage(), req.GetSignature())
	if errors.Is(err, driver.ErrPublicKey) {
		return false, fault.Invalid("public_key", "must be an uncompressed point of the SM2 curve: %v", err)
	}
	return valid, err
}

func keyMessage(key keyring.Key) *cryptov1.Key {
	kinds := map[keyring.Kind]cryptov1.KeyKind{
		keyring.KindSM4: cryptov1.KeyKind_KEY_KIND_SM4,
		keyring.KindSM2: cryptov1.KeyKind_KEY_KIND_SM2,
	}
	return &cryptov1.Key{
		Handle: key.Handle, Kind: kinds[key.Kind], Version: key.Version,
		CreateTime: timestamppb.New(key.Created), PublicKey: key.Public,
	}
}
