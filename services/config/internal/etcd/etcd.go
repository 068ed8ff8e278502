// Package etcd makes clients of etcd.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/bootstrap"
)

const (
	maxSecret = 4 << 10 // caps what a wrong path may load
	maxPEM    = 1 << 20
	// maxAnswer bounds one answer of etcd: a page of 64 settings of its
	// default limit of 1.5 MiB each.
	maxAnswer = 97 << 20
	maxCall   = 2 << 20
)

// Dialer makes clients.
type Dialer struct {
	cfg bootstrap.Etcd
	tls *tls.Config
}

// NewDialer reads the TLS files, so that a wrong path is known at the start.
// The error names the setting.
func NewDialer(cfg bootstrap.Etcd) (*Dialer, error) {
	d := &Dialer{cfg: cfg}
	if strings.HasPrefix(cfg.Endpoints[0], "https://") {
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	var faults []error
	if cfg.CAFile != "" {
		pool := x509.NewCertPool()
		pem, err := readBounded(cfg.CAFile, maxPEM)
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no certificate", cfg.CAFile)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("etcd.ca_file: %w", err))
		}
		d.tls.RootCAs = pool
	}
	if cfg.CertFile != "" {
		// Read anew for each handshake, so that a renewed certificate is
		// taken without a restart.
		d.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			return &cert, err
		}
		if _, err := d.tls.GetClientCertificate(nil); err != nil {
			faults = append(faults, fmt.Errorf("etcd.cert_file: %w", err))
		}
	}
	if cfg.PasswordFile != "" {
		if _, err := d.password(); err != nil {
			faults = append(faults, err)
		}
	}
	return d, errors.Join(faults...)
}

func (d *Dialer) password() (string, error) {
	raw, err := readBounded(d.cfg.PasswordFile, maxSecret)
	if err != nil {
		return "", fmt.Errorf("etcd.password_file: %w", err)
	}
	password := strings.TrimRight(string(raw), "\r\n")
	if password == "" {
		return "", fmt.Errorf("etcd.password_file: %s is empty", d.cfg.PasswordFile)
	}
	return password, nil
}

// Dial returns a client. Without a user it does not wait for etcd; with one it
// logs in, within dial_timeout. The caller closes it.
func (d *Dialer) Dial(ctx context.Context) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: d.cfg.Endpoints, DialTimeout: d.cfg.DialTimeout,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, PermitWithoutStream: true,
		MaxCallSendMsgSize: maxCall, MaxCallRecvMsgSize: maxAnswer,
		TLS: d.tls, Logger: zap.NewNop(), // it logs each attempt; the service says once that etcd is away
		Context: ctx,
		// The default of up to two minutes between attempts is for the internet.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: d.cfg.DialTimeout,
		})},
	}
	if d.cfg.User != "" {
		password, err := d.password()
		if err != nil {
			return nil, err
		}
		cfg.Username, cfg.Password = d.cfg.User, password
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach etcd: %w", err)
	}
	return client, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	raw, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("%s must be at most %d bytes, is more", path, most)
	}
	return raw, err
}
