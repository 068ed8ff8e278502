//go:build tinygo

// Command threshold is a policy: it rejects a reading whose temperature is over
// 85 °C, the limit of industrial electronics (IEC 60721 class of the usual
// −40 to +85 °C parts), or is no number at all.
package main

import "github.com/xinghuo-edge/xinghuo/services/policy/guest/xh"

const (
	limit = 85.0

	reasonHot = 1
	reasonNaN = 2
)

func init() {
	xh.Handle(judge, "temperature above 85 °C", "temperature is not a number")
}

func judge(r xh.Reading) uint64 {
	values := r.Values()
	for values.Next() {
		if values.Name() != "temperature" {
			continue
		}
		switch n, ok := values.Number(); {
		case !ok, n != n: // a text is no temperature either
			return xh.Verdict(xh.Reject, reasonNaN)
		case n > limit:
			return xh.Verdict(xh.Reject, reasonHot)
		}
	}
	return xh.Verdict(xh.Accept, 0)
}

func main() {}
