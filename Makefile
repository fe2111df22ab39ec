.PHONY: build test lint install

build:
	go build -o bin/ ./cmd/...

test:
	hack/test

lint:
	hack/lint

install: build
	install -m 0755 bin/pgrex $(DESTDIR)/usr/local/bin/pgrex
	install -D -m 0644 hack/systemd/pgrex.service $(DESTDIR)/etc/systemd/system/pgrex.service
