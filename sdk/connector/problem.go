package connector

import (
	"errors"
	"io/fs"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
)

// Problem is an error whose reason is known.
type Problem struct {
	Reason artifact.Reason
	Err    error
}

func (p *Problem) Error() string { return p.Err.Error() }

func (p *Problem) Unwrap() error { return p.Err }

// ReasonOf classifies an error of a connector: the reason of a *Problem, what
// fs.ErrNotExist and fs.ErrPermission stand for, and otherwise
// predicate.ReadFailed.
func ReasonOf(err error) artifact.Reason {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p.Reason
	case errors.Is(err, fs.ErrNotExist):
		return predicate.NotFound
	case errors.Is(err, fs.ErrPermission):
		return predicate.PermissionDenied
	}
	return predicate.ReadFailed
}
