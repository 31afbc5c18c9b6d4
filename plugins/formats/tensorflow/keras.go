package tensorflow

import (
	"context"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/protowire"
)

// maxConfigurations bounds the configurations of one file. A model has one for
// each layer.
const maxConfigurations = 100_000

// metadata notes a text that an object keeps. JSON is Keras's: it makes the
// object of it again. Other objects have a text of their own there.
func (s *scan) metadata(start, end int64) error {
	if start == end {
		return nil
	}
	b, err := s.w.Bytes(start, 1)
	if err != nil || b[0] != '{' && b[0] != '[' {
		return err
	}
	if len(s.configurations) >= maxConfigurations {
		return protowire.ErrFields
	}
	s.configurations = append(s.configurations, [2]int64{start, end})
	return nil
}

// scanConfigurations hands the configurations on.
func (s *scan) scanConfigurations(ctx context.Context, settings func(context.Context, *content.Visit) error) error {
	if settings == nil {
		settings = unreadSettings
	}
	for _, c := range s.configurations {
		if _, err := s.v.EnterWith(ctx, s.v.Part(c[0], c[1]), settings); err != nil {
			return err
		}
	}
	return nil
}

func unreadSettings(_ context.Context, v *content.Visit) error {
	v.Format = "json"
	v.Unread(0, v.Size, predicate.UnsupportedFormat)
	return nil
}
