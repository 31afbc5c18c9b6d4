module github.com/cavra/cavra/plugins

go 1.26.0

require (
	github.com/cavra/cavra/schemas v0.0.0
	github.com/cavra/cavra/sdk v0.0.0
)

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/cavra/cavra/schemas => ../schemas

replace github.com/cavra/cavra/sdk => ../sdk
