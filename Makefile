.PHONY: build packages test lint

build:
	go build -o bin/ ./cmd/...

packages:
	hack/package

test:
	hack/test

lint:
	hack/lint
