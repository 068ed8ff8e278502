module github.com/xinghuo-edge/xinghuo/services/crypto

go 1.26.0

require (
	github.com/tjfoc/gmsm v1.4.1
	github.com/xinghuo-edge/xinghuo/pkg v0.0.0
	golang.org/x/sys v0.49.0
	pgregory.net/rapid v1.3.0
)

require (
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/xinghuo-edge/xinghuo/pkg => ../../pkg

replace github.com/xinghuo-edge/xinghuo/proto => ../../proto
