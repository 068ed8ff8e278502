package mqtttest

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

const wait = 10 * time.Second

// Mosquitto starts Debian's mosquitto on a free port, which ends with the test.
// The test is skipped where it is not installed.
func Mosquitto(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("mosquitto is not installed (apt-get install mosquitto)")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	cmd := exec.Command(path, "-p", fmt.Sprint(port)) // without a configuration it listens on loopback only
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testkit.Eventually(t, wait, "mosquitto to listen", func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return "tcp://" + address
}

// Message is what a subscriber got.
type Message struct {
	Payload  string
	Retained bool // it was there before the subscription
	QoS      byte
}

// Watcher is a subscriber.
type Watcher struct {
	mu       sync.Mutex
	messages map[string][]Message
}

var clients struct {
	sync.Mutex
	n int
}

// Watch subscribes at a broker; the subscription ends with the test.
func Watch(t testing.TB, url, filter string) *Watcher {
	t.Helper()
	clients.Lock()
	clients.n++
	id := fmt.Sprintf("watcher-%d", clients.n)
	clients.Unlock()
	w := &Watcher{messages: make(map[string][]Message)}
	c := paho.NewClient(paho.NewClientOptions().AddBroker(url).SetClientID(id).SetAutoReconnect(false).SetConnectTimeout(wait))
	if token := c.Connect(); !token.WaitTimeout(wait) || token.Error() != nil {
		t.Fatalf("connect to %s: %v", url, token.Error())
	}
	t.Cleanup(func() { c.Disconnect(250) })
	token := c.Subscribe(filter, 1, func(_ paho.Client, m paho.Message) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.messages[m.Topic()] = append(w.messages[m.Topic()], Message{string(m.Payload()), m.Retained(), m.Qos()})
	})
	if !token.WaitTimeout(wait) || token.Error() != nil {
		t.Fatalf("subscribe to %s: %v", filter, token.Error())
	}
	return w
}

// All returns what came on a topic.
func (w *Watcher) All(topic string) []Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.messages[topic])
}

// Last returns what came last on a topic.
func (w *Watcher) Last(topic string) Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.messages[topic]; len(m) > 0 {
		return m[len(m)-1]
	}
	return Message{}
}

// Topics returns how many topics there are.
func (w *Watcher) Topics() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.messages)
}
