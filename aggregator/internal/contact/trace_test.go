package contact

import (
	"context"
	"net/http/httptrace"
)

// trace counts the connections that calls make.
func trace(ctx context.Context, made *int) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{ConnectDone: func(string, string, error) { *made++ }})
}
