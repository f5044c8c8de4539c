package yamlfile

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxWord   = 64 // bytes of a word for which a suggestion is sought
	maxListed = 16 // known names that a message lists
)

// Nearest returns the candidate that word is most likely a misspelling of, or "": one
// that equals word but for letter case, is at an edit distance ([Distance]) of at most
// a third of word's length and one half, or begins with word and an underscore.
func Nearest(word string, candidates []string) string {
	if word == "" || len(word) > maxWord {
		return ""
	}
	best, least := "", 1+(utf8.RuneCountInString(word)+1)/3
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return c
		}
		if d := Distance(word, c); d < least {
			best, least = c, d
		}
	}
	if best != "" {
		return best
	}
	for _, c := range candidates {
		if strings.HasPrefix(c, word+"_") && (best == "" || len(c) < len(best)) {
			best = c
		}
	}
	return best
}

// Suggest returns " (did you mean x?)" for the known name nearest to word, or ""
// if none is near.
func Suggest(word string, known []string) string {
	if best := Nearest(word, known); best != "" {
		return " (did you mean " + best + "?)"
	}
	return ""
}

// SuggestOrList is [Suggest], but lists the known names if none is near and they are few.
func SuggestOrList(word string, known []string) string {
	if hint := Suggest(word, known); hint != "" || len(known) == 0 || len(known) > maxListed {
		return hint
	}
	return "; it is one of " + strings.Join(known, ", ")
}

// Distance returns the edit distance of two words in bytes (Damerau-Levenshtein, each
// part edited once).
func Distance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// Shorten cuts text from a file or a request to the length that messages show.
func Shorten(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// unknown returns the suggestion for an unknown key.
func (d *Document) unknown(key string, known []string) string {
	if Nearest(key, known) == "" {
		at := slices.IndexFunc(d.options.Paths, func(path string) bool { return strings.HasSuffix(path, "."+key) })
		if at >= 0 {
			return " (did you mean " + d.options.Paths[at] + "?)"
		}
	}
	return SuggestOrList(key, known)
}
