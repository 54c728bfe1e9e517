module gocgo

go 1.22
