package msgpack

import (
	"context"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/pickle"
)

// pickleIn scans data that is a pickle, and says whether it is.
func pickleIn(ctx context.Context, v *content.Visit) (bool, error) {
	is, err := pickle.Format{}.Identify(ctx, v)
	if err != nil || !is {
		return false, err
	}
	return true, pickle.Format{}.Scan(ctx, v)
}
