// Package mesh reaches a peer service by its name.
//
// Every call has a deadline, waits for its peer to be there, and is retried
// with backoff when the peer was away (UNAVAILABLE) and the method's contract
// says that calling twice does no harm (idempotency_level in the .proto).
package mesh

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/xinghuo-edge/xinghuo/pkg/telemetry"
)

// maxMessage is pkg/node's bound on a message.
const maxMessage = 4 << 20

// Dial returns a connection to a service whose socket is in runDir. It does not
// wait for the service: the first call does. The caller closes it.
func Dial(runDir, service string) (*grpc.ClientConn, error) {
	config, err := serviceConfig(protoregistry.GlobalFiles)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(runDir, service+".sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's permissions and SO_PEERCRED guard it
		grpc.WithDefaultServiceConfig(config),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithChainUnaryInterceptor(unaryDeadline),
		grpc.WithChainStreamInterceptor(streamDeadline),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		// A service is back within a second or three, and is to be found within
		// one more; the default of up to two minutes between attempts is for the
		// internet.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithTracerProvider(telemetry.NewTracerProvider()),
			otelgrpc.WithPropagators(telemetry.Propagator()))),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", service, err)
	}
	return conn, nil
}

// serviceConfig writes gRPC's retry policy (gRFC A6) for every idempotent
// unary method of ours that is linked into this program.
func serviceConfig(files *protoregistry.Files) (string, error) {
	type name struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	var names []name
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if fd.Package().Parent().Parent() != "xinghuo" {
			return true
		}
		for i := range fd.Services().Len() {
			svc := fd.Services().Get(i)
			for j := range svc.Methods().Len() {
				if m := svc.Methods().Get(j); idempotent(m) && !m.IsStreamingClient() && !m.IsStreamingServer() {
					names = append(names, name{string(svc.FullName()), string(m.Name())})
				}
			}
		}
		return true
	})
	type retry struct {
		MaxAttempts          int      `json:"maxAttempts"`
		InitialBackoff       string   `json:"initialBackoff"`
		MaxBackoff           string   `json:"maxBackoff"`
		BackoffMultiplier    float64  `json:"backoffMultiplier"`
		RetryableStatusCodes []string `json:"retryableStatusCodes"`
	}
	type method struct {
		Name        []name `json:"name"`
		RetryPolicy retry  `json:"retryPolicy"`
	}
	config := struct {
		MethodConfig []method `json:"methodConfig,omitempty"`
	}{}
	if len(names) > 0 {
		config.MethodConfig = []method{{names, retry{4, "0.05s", "1s", 2, []string{"UNAVAILABLE"}}}}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("write service config: %w", err)
	}
	return string(raw), nil
}

func idempotent(m protoreflect.MethodDescriptor) bool {
	opts, ok := m.Options().(*descriptorpb.MethodOptions)
	return ok && opts.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}
