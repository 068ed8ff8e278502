// Package server translates between xinghuo.policy.v1 and the engine.
package server

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/abi"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/engine"
)

// maxBatch is how many readings one message may carry.
const maxBatch = 256

// Judge is what the server needs of the engine.
type Judge interface {
	EvaluateBatch(ctx context.Context, readings []abi.Reading, verdicts []engine.Verdict) (uint64, error)
	Info() engine.Info
}

type server struct {
	policyv1.UnimplementedPolicyServiceServer
	judge Judge
}

// Register adds the service to r.
func Register(r grpc.ServiceRegistrar, judge Judge) {
	policyv1.RegisterPolicyServiceServer(r, &server{judge: judge})
}

// EvaluateStream implements policyv1.PolicyServiceServer.
func (s *server) EvaluateStream(stream grpc.BidiStreamingServer[policyv1.EvaluateStreamRequest, policyv1.EvaluateStreamResponse]) error {
	var b batch
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		verdicts, generation, err := b.judge(stream.Context(), s.judge, req.GetReadings())
		if err != nil {
			return err
		}
		if err := stream.Send(&policyv1.EvaluateStreamResponse{
			BatchId: req.GetBatchId(), Verdicts: verdicts, Generation: generation,
		}); err != nil {
			return err
		}
	}
}

// Evaluate implements policyv1.PolicyServiceServer.
func (s *server) Evaluate(ctx context.Context, req *policyv1.EvaluateRequest) (*policyv1.EvaluateResponse, error) {
	if req.GetReading() == nil {
		return nil, fault.Invalid("reading", "must be set")
	}
	var b batch
	verdicts, generation, err := b.judge(ctx, s.judge, []*policyv1.DeviceReading{req.GetReading()})
	var field *fault.FieldError
	if errors.As(err, &field) { // of a batch of one, which the caller did not send
		return nil, fault.Invalid("reading"+strings.TrimPrefix(field.Field, "readings[0]"), "%s", field.Description)
	}
	if err != nil {
		return nil, err
	}
	return &policyv1.EvaluateResponse{Verdict: verdicts[0], Generation: generation}, nil
}

// ListModules implements policyv1.PolicyServiceServer.
func (s *server) ListModules(context.Context, *policyv1.ListModulesRequest) (*policyv1.ListModulesResponse, error) {
	info := s.judge.Info()
	resp := &policyv1.ListModulesResponse{Generation: info.Generation, Refusal: info.Refusal, Backend: info.Backend}
	for _, m := range info.Modules {
		resp.Modules = append(resp.Modules, &policyv1.Module{
			Name: m.Name, Sha256: m.SHA256, SizeBytes: uint64(m.SizeBytes), LoadTime: timestamppb.New(m.Loaded),
			Evaluations: m.Evaluations, Rejections: m.Rejections, Traps: m.Traps,
		})
	}
	return resp, nil
}
