module github.com/xinghuo-edge/xinghuo/fleet

go 1.26.0

require (
	github.com/gorilla/websocket v1.5.3
	github.com/xinghuo-edge/xinghuo/pkg v0.0.0
	github.com/xinghuo-edge/xinghuo/proto v0.0.0
	go.uber.org/goleak v1.3.0
	golang.org/x/sync v0.24.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/stretchr/testify v1.12.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/grpc v1.85.0 // indirect
)

replace github.com/xinghuo-edge/xinghuo/pkg => ../pkg

replace github.com/xinghuo-edge/xinghuo/proto => ../proto
