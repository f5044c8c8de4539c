package cel

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Nearest returns " (did you mean x?)" for the candidate that word is a
// misspelling of, or "".
func Nearest(word string, candidates []string) string {
	if word == "" || len(word) > 64 {
		return ""
	}
	best, bestDistance := "", 1+(utf8.RuneCountInString(word)+1)/3
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return fmt.Sprintf(" (did you mean %s?)", c)
		}
		if d := editDistance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// editDistance counts the insertions, removals, replacements and swaps of
// neighbours that make b of a.
func editDistance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	this := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			this[j] = min(replaced, last[j]+1, this[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}

// OneOf says which name was meant, or which there are.
func OneOf(word string, known []string) string {
	if hint := Nearest(word, known); hint != "" {
		return hint
	}
	return "; it is one of " + strings.Join(known, ", ")
}
