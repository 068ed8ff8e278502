// Package naive is the first shape that most Go programmers give such a node,
// written as plainly as they would: a goroutine a device, and in it, for each
// reading, a unary call to policy, a synchronous publish to JetStream and a
// goroutine that publishes the status over MQTT. It is what the node is
// measured against; it speaks the devices' protocol and stands on the node's
// own policy service, NATS and MQTT door.
package naive

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

// Stream is the JetStream stream that the readings go to, one a message, on
// `naive.tel.<device>`.
const Stream = "NAIVE"

const (
	window      = 256
	maxFrame    = 64 << 10
	callTimeout = 5 * time.Second
)

type server struct {
	policy   policyv1.PolicyServiceClient
	js       jetstream.JetStream
	mqtt     mqtt.Client
	upgrader websocket.Upgrader
	log      *slog.Logger
}

// Run serves devices until ctx ends.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	fs := flag.NewFlagSet("naive", flag.ContinueOnError)
	fs.SetOutput(logs)
	listen := fs.String("listen", "127.0.0.1:8701", "address of the device door")
	policySocket := fs.String("policy", "/run/xinghuo/policy.sock", "socket of the policy service")
	natsURL := fs.String("nats", "nats://127.0.0.1:4222", "where NATS is")
	mqttURL := fs.String("mqtt", "tcp://127.0.0.1:1883", "where MQTT is")
	if err := fs.Parse(args); err != nil {
		return err
	}

	conn, err := grpc.NewClient("unix://"+*policySocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("dial policy: %w", err)
	}
	defer conn.Close()
	nc, err := nats.Connect(*natsURL)
	if err != nil {
		return fmt.Errorf("connect to nats: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: Stream, Subjects: []string{"naive.tel.>"}}); err != nil {
		return fmt.Errorf("make stream: %w", err)
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(*mqttURL).SetClientID("naive"))
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		return fmt.Errorf("connect to mqtt: %w", token.Error())
	}
	defer client.Disconnect(250)

	s := &server{
		policy: policyv1.NewPolicyServiceClient(conn), js: js, mqtt: client,
		upgrader: websocket.Upgrader{Subprotocols: []string{"xinghuo.v1+proto"}},
		log:      slog.New(slog.NewJSONHandler(logs, nil)),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/devices/{id}", s.serve)
	srv := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve devices: %w", err)
	}
	return nil
}

// serve is a device's goroutine.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = ws.Close() })
	defer stop()
	ws.SetReadLimit(maxFrame)
	id := r.PathValue("id")
	for {
		_, raw, err := ws.ReadMessage()
		if err != nil {
			return
		}
		var frame devicev1.DeviceFrame
		if err := proto.Unmarshal(raw, &frame); err != nil {
			s.log.Error("bad frame", "device_id", id, "err", err)
			return
		}
		var answer devicev1.NodeFrame
		switch body := frame.Body.(type) {
		case *devicev1.DeviceFrame_Hello:
			answer.Body = &devicev1.NodeFrame_Welcome{Welcome: &devicev1.Welcome{Window: window}}
		case *devicev1.DeviceFrame_Readings:
			ack := &devicev1.Ack{}
			for _, reading := range body.Readings.Readings {
				reason, err := s.handle(r.Context(), id, reading)
				if err != nil {
					s.log.Error("reading failed", "device_id", id, "err", err)
					return
				}
				if reason != "" {
					ack.Rejections = append(ack.Rejections, &devicev1.Rejection{Sequence: reading.Sequence, Reason: reason})
				}
				ack.Sequence = reading.Sequence
			}
			answer.Body = &devicev1.NodeFrame_Ack{Ack: ack}
		default:
			continue
		}
		if raw, err = proto.Marshal(&answer); err != nil {
			s.log.Error("bad answer", "device_id", id, "err", err)
			return
		}
		if err := ws.WriteMessage(websocket.BinaryMessage, raw); err != nil {
			return
		}
	}
}

// handle takes one reading through policy to JetStream and MQTT. A reason
// means that policy rejected it.
func (s *server) handle(ctx context.Context, id string, reading *telemetryv1.Reading) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.policy.Evaluate(ctx, &policyv1.EvaluateRequest{
		Reading: &policyv1.DeviceReading{DeviceId: id, Source: "ws", Reading: reading},
	})
	if err != nil {
		return "", fmt.Errorf("evaluate: %w", err)
	}
	if resp.Verdict.Action == policyv1.Action_ACTION_REJECT {
		return resp.Verdict.Reason, nil
	}
	raw, err := proto.Marshal(&telemetryv1.Telemetry{
		DeviceId: id, Source: "ws",
		Readings: []*telemetryv1.AcceptedReading{{Reading: reading, Evaluation: telemetryv1.Evaluation_EVALUATION_ACCEPTED}},
	})
	if err != nil {
		return "", fmt.Errorf("marshal: %w", err)
	}
	if _, err := s.js.Publish(ctx, "naive.tel."+id, raw); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	go s.publishStatus(id, reading)
	return "", nil
}

// publishStatus publishes a device's status; nobody waits for it.
func (s *server) publishStatus(id string, reading *telemetryv1.Reading) {
	values := make(map[string]float64, len(reading.Values))
	for _, v := range reading.Values {
		values[v.Name] = v.Number
	}
	status, err := json.Marshal(map[string]any{
		"device_id": id, "sequence": reading.Sequence, "time": reading.Time.AsTime(), "values": values,
	})
	if err != nil {
		s.log.Error("status failed", "device_id", id, "err", err)
		return
	}
	token := s.mqtt.Publish("naive/devices/"+id+"/status", 1, true, status)
	if !token.WaitTimeout(callTimeout) {
		s.log.Error("status timed out", "device_id", id)
	} else if token.Error() != nil {
		s.log.Error("status failed", "device_id", id, "err", token.Error())
	}
}
