package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseSize reads a size such as 320MB in PostgreSQL's units, powers of 1024. A bare number counts bytes.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKMGTiB")
	factor, ok := map[string]int64{
		"": 1, "B": 1, "kB": 1 << 10, "KB": 1 << 10, "K": 1 << 10, "KiB": 1 << 10, "MB": 1 << 20, "M": 1 << 20, "MiB": 1 << 20,
		"GB": 1 << 30, "G": 1 << 30, "GiB": 1 << 30, "TB": 1 << 40, "T": 1 << 40, "TiB": 1 << 40,
	}[text[len(digits):]]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || !ok || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is no size such as 500MB or 2GB", text)
	}
	return n * factor, nil
}
