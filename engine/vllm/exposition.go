package vllm

import "strings"

// samples calls each for every sample of Prometheus' text format whose name has a
// prefix; labels are as they stand between the braces.
func samples(page, prefix string, each func(name, labels, value string)) {
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		end := strings.IndexAny(line, "{ \t")
		if end < 0 {
			continue
		}
		name, rest, labels := line[:end], line[end:], ""
		if rest[0] == '{' {
			stop := strings.LastIndexByte(rest, '}')
			if stop < 0 {
				continue
			}
			labels, rest = rest[1:stop], rest[stop+1:]
		}
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ") // a time may follow
		each(name, labels, value)
	}
}

// label returns the value of one label; "" if it is not there.
func label(labels, name string) string {
	for labels != "" {
		equal := strings.IndexByte(labels, '=')
		if equal < 0 || equal+1 >= len(labels) || labels[equal+1] != '"' {
			return ""
		}
		key, rest := strings.TrimSpace(labels[:equal]), labels[equal+2:]
		end := 0
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			return ""
		}
		if key == name {
			return rest[:end]
		}
		labels = strings.TrimLeft(rest[end+1:], ", ")
	}
	return ""
}
