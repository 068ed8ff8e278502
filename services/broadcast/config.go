package broadcast

import (
	"fmt"
	"strconv"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/mqtt"
)

const (
	// maxFlush bounds how long the queues may take to go out when the service
	// stops.
	maxFlush = 5 * time.Second

	maxCapacity     = 65536
	maxEnqueueLimit = 10 * time.Second
	minBytes        = 1 << 20
	maxBytes        = 1 << 30
	maxDevices      = 1_000_000
	// maxWindow leaves half of MQTT's 65,535 packet ids free.
	maxWindow = 32768
)

type config struct {
	settings.Node  `yaml:",inline"`
	MQTT           mqttConfig    `yaml:"mqtt"`
	QueueCapacity  int           `yaml:"queue_capacity" usage:"statuses that a device's queue holds, 1 to 65536; live"`
	EnqueueLimit   time.Duration `yaml:"enqueue_limit" usage:"how long a status waits for a place in a full queue before it is dropped, 0s to 10s; live"`
	MaxDevices     int           `yaml:"max_devices" usage:"devices that may have a queue, 1 to 1000000"`
	MaxQueuedBytes int           `yaml:"max_queued_bytes" usage:"bytes of all queued statuses together, 1 MiB to 1 GiB"`
}

type mqttConfig struct {
	URL        string        `yaml:"url" usage:"the broker, tcp://host:port"`
	AckTimeout time.Duration `yaml:"ack_timeout" usage:"how long the broker may take to confirm before the connection is made anew, 100ms to 1m"`
	Window     int           `yaml:"window" usage:"statuses on their way to the broker at a time, 1 to 32768"`
}

func defaults() config {
	return config{
		Node:          settings.DefaultNode(),
		MQTT:          mqttConfig{URL: "tcp://127.0.0.1:1883", AckTimeout: 5 * time.Second, Window: 256},
		QueueCapacity: 64, EnqueueLimit: 200 * time.Millisecond,
		MaxDevices: 100_000, MaxQueuedBytes: 64 << 20,
	}
}

// Check implements settings.Checker.
func (c *config) Check() []error {
	faults := c.Node.Check()
	if err := mqtt.CheckURL(c.MQTT.URL); err != nil {
		faults = append(faults, fmt.Errorf("mqtt.url: %w", err))
	}
	for _, err := range []error{
		settings.DurationIn("mqtt.ack_timeout", c.MQTT.AckTimeout, 100*time.Millisecond, time.Minute),
		settings.IntIn("mqtt.window", c.MQTT.Window, 1, maxWindow),
		settings.IntIn("queue_capacity", c.QueueCapacity, 1, maxCapacity),
		settings.DurationIn("enqueue_limit", c.EnqueueLimit, 0, maxEnqueueLimit),
		settings.IntIn("max_devices", c.MaxDevices, 1, maxDevices),
		settings.IntIn("max_queued_bytes", c.MaxQueuedBytes, minBytes, maxBytes),
	} {
		if err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

func (c *config) setEnqueueLimit(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("enqueue_limit: must be a duration, is %.80q", text)
	}
	c.EnqueueLimit = d
	return settings.DurationIn("enqueue_limit", d, 0, maxEnqueueLimit)
}

func (c *config) setQueueCapacity(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("queue_capacity: must be an int, is %.80q", text)
	}
	c.QueueCapacity = n
	return settings.IntIn("queue_capacity", n, 1, maxCapacity)
}
