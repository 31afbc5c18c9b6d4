package plugin

import (
	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/sdk/scanner"
)

// parts cuts a report into messages and keeps it within the host's bounds. What
// does not fit is counted, and the claims of coverage are sent whole or not at
// all: one left out could be the gap that another hides.
type parts struct {
	send func(*pb.Report) error
	part pb.Report
	here int
	used int
}

func (p *parts) all(r scanner.Report, done *pb.Done) error {
	if err := p.coverage(r); err != nil {
		return err
	}
	for i, f := range r.Findings {
		out := findingOut(f)
		cost := itemCost + len(out.GetRule()) + len(out.GetLocation().GetClass()) + len(out.GetLocation().GetMember())
		for _, e := range out.GetEvidence() {
			cost += len(e)
		}
		if i >= scanner.MaxFindings || !p.fits(cost) {
			done.FindingsOmitted++
			continue
		}
		p.part.Findings = append(p.part.Findings, out)
		if err := p.flush(partBytes); err != nil {
			return err
		}
	}
	for i, c := range r.Children {
		out := childOut(c)
		if i >= scanner.MaxChildren || !p.fits(itemCost+len(out.GetMember())+len(out.GetFormat())) {
			break
		}
		p.part.Children = append(p.part.Children, out)
		if err := p.flush(partBytes); err != nil {
			return err
		}
	}
	for i, im := range r.Imports {
		out := importOut(im)
		cost := itemCost + len(out.GetModule()) + len(out.GetName()) + len(out.GetLocation().GetClass()) + len(out.GetLocation().GetMember())
		if i >= scanner.MaxImports || !p.fits(cost) {
			done.ImportsOmitted++
			continue
		}
		p.part.Imports = append(p.part.Imports, out)
		if err := p.flush(partBytes); err != nil {
			return err
		}
	}
	return p.flush(1)
}

// coverage goes first, so that no name can crowd it out.
func (p *parts) coverage(r scanner.Report) error {
	total := 0
	for _, c := range r.Coverage {
		total += rangeCost(c)
	}
	if len(r.Coverage) > scanner.MaxRanges {
		return nil
	}
	bare := total > maxReportBytes/2
	for _, c := range r.Coverage {
		if bare {
			c.Member = ""
		}
		out := rangeOut(c)
		p.fits(itemCost + len(out.GetMember()))
		p.part.Ranges = append(p.part.Ranges, out)
		if err := p.flush(partBytes); err != nil {
			return err
		}
	}
	return nil
}

// fits counts cost in, unless the report would be too large with it.
func (p *parts) fits(cost int) bool {
	if p.used+cost > maxReportBytes {
		return false
	}
	p.used += cost
	p.here += cost
	return true
}

// flush sends the part when it is of size bytes or more.
func (p *parts) flush(size int) error {
	if p.here < size {
		return nil
	}
	err := p.send(&pb.Report{Findings: p.part.Findings, Imports: p.part.Imports, Ranges: p.part.Ranges, Children: p.part.Children})
	p.part.Reset()
	p.here = 0
	return err
}
