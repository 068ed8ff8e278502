// Package peercred says who holds the other end of a unix socket, what that
// peer may call, and writes down whom it refused.
//
// The kernel answers with the uid, gid and pid that the peer had when it
// connected (SO_PEERCRED, unix(7)); nothing a caller sends is believed.
package peercred

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Peer is the process at the other end of a socket.
type Peer struct {
	UID, GID uint32
	PID      int32
}

// AuthType implements credentials.AuthInfo.
func (Peer) AuthType() string { return "peercred" }

// FromContext returns the peer of the gRPC call that ctx belongs to, and false
// when the call did not come over a socket served with Credentials.
func FromContext(ctx context.Context) (Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	id, ok := p.AuthInfo.(Peer)
	return id, ok
}

// Of asks the kernel who is at the other end of conn.
func Of(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, fmt.Errorf("peer credentials: %w", err)
	}
	if serr != nil {
		return Peer{}, fmt.Errorf("peer credentials: SO_PEERCRED: %w", serr)
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

// Credentials returns transport credentials for a server on unix sockets. They
// add no encryption: the bytes never leave the kernel.
func Credentials() credentials.TransportCredentials { return transport{} }

var errNotUnix = errors.New("peercred: not a unix socket")

type transport struct{}

func (transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errNotUnix
	}
	p, err := Of(uc)
	if err != nil {
		return nil, nil, err
	}
	return c, p, nil
}

func (transport) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peercred: a client needs no credentials; use insecure")
}

func (transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}
func (transport) Clone() credentials.TransportCredentials { return transport{} }
func (transport) OverrideServerName(string) error         { return nil }
