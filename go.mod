module github.com/pgrex/pgrex

go 1.26.8
