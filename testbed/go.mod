module github.com/cavra/cavra/testbed

go 1.26.0

require (
	github.com/cavra/cavra/plugins v0.0.0
	github.com/cavra/cavra/schemas v0.0.0
	github.com/cavra/cavra/sdk v0.0.0
	github.com/google/go-cmp v0.7.0
	github.com/jackc/pgx/v5 v5.12.0
	github.com/klauspost/compress v1.20.3
	github.com/segmentio/kafka-go v0.4.51
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/pierrec/lz4/v4 v4.1.27 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	github.com/xdg-go/pbkdf2 v1.0.0 // indirect
	github.com/xdg-go/scram v1.1.2 // indirect
	github.com/xdg-go/stringprep v1.0.4 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/cavra/cavra/schemas => ../schemas

replace github.com/cavra/cavra/sdk => ../sdk

replace github.com/cavra/cavra/plugins => ../plugins
