package postgres

import "context"

// Classify is for the test that has real servers fail.
var Classify = classify

// ApplicationNameIn is for connection strings that no server has.
var ApplicationNameIn = applicationNameIn

// UpstreamSetting is a setting of the kept walsender's session.
func (s *Server) UpstreamSetting(ctx context.Context, name string) (string, error) {
	row, err := s.upstream.row(ctx, "SHOW "+name, "show "+name)
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}
