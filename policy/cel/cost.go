package cel

import (
	"strings"

	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/discharger/discharger/policy"
)

// costs holds the sizes of the input and the costs of this package's functions, for the
// worst case of an expression before it runs. A unit is about the time of comparing two
// numbers; ten thousand take about a millisecond.
type costs struct {
	sizes map[string]cost.SizeEstimate // by path, joined by dots
}

func newCosts(table []Field, lists map[string]*stringList) *costs {
	c := &costs{sizes: map[string]cost.SizeEstimate{}}
	for _, f := range table {
		if f.Size == 0 {
			continue
		}
		c.sizes[f.Path()] = cost.RangedSizeEstimate(0, f.Size)
		if f.Type.Kind() == types.MapKind {
			c.sizes[f.Path()+".@keys"] = cost.RangedSizeEstimate(0, policy.MaxLabelKey)
			c.sizes[f.Path()+".@values"] = cost.RangedSizeEstimate(0, policy.MaxLabelValue)
		}
	}
	for name, list := range lists {
		c.sizes[listPrefix+name] = cost.FixedSizeEstimate(uint64(len(list.values)))
		c.sizes[listPrefix+name+".@items"] = cost.RangedSizeEstimate(0, uint64(list.longest))
	}
	return c
}

// EstimateSize implements cost.Estimator.
func (c *costs) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	if path := node.Path(); len(path) > 0 {
		if size, ok := c.sizes[strings.Join(path, ".")]; ok {
			return &size
		}
		// The value of a label.
		if len(path) == 3 && path[0] == "session" && path[1] == "labels" && node.Type().Kind() == types.StringKind {
			size := cost.RangedSizeEstimate(0, policy.MaxLabelValue)
			return &size
		}
	}
	return nil
}

// EstimateCallCost implements cost.Estimator.
func (c *costs) EstimateCallCost(_, overload string, _ *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	price := cost.FixedCostEstimate(priceOf(overload))
	switch overload {
	case "in_list":
		if path := args[1].Path(); len(path) > 0 && strings.HasPrefix(path[0], listPrefix) {
			price = cost.FixedCostEstimate(lookupCost)
		}
	case "string_to_networks":
		price = cost.EstimateSize(c, args[0]).Add(cost.FixedSizeEstimate(1)).MultiplyByCostFactor(1)
	}
	if price.Max == 0 {
		return nil
	}
	return cost.NewCallEstimate(price, nil)
}

// CallCost implements cost.ActualCostEstimator.
func (c *costs) CallCost(_, overload string, args []ref.Val, _ ref.Val) *uint64 {
	price := priceOf(overload)
	switch overload {
	case "in_list":
		if _, ok := args[1].(*stringList); ok {
			price = lookupCost
		}
	case "string_to_networks":
		if s, ok := args[0].(types.String); ok {
			price = uint64(len(s)) + 1
		}
	}
	if price == 0 {
		return nil
	}
	return &price
}

// lookupCost is the cost of a lookup, which parses at most 45 characters and does a binary
// search.
const lookupCost = 3

// priceOf returns the cost of a function of this package, or 0.
func priceOf(overload string) uint64 {
	switch overload {
	case "string_in_networks", "ip_in_networks", "string_in_cidr", "ip_in_cidr",
		"networks_contains_ip_string", "networks_contains_ip_ip", "same_network":
		return lookupCost
	case "timestamp_during":
		return 4
	}
	return 0
}

// The prefixes of the variables of a file's lists.
const (
	listPrefix    = "lists."
	networkPrefix = "networks."
)

// A stringList is a list of strings from a file: a CEL list with a map for lookups.
type stringList struct {
	traits.Lister
	values  []string
	members map[string]bool
	longest int
}

func newStringList(values []string) *stringList {
	l := &stringList{
		Lister:  types.NewStringList(types.DefaultTypeAdapter, values),
		values:  values,
		members: make(map[string]bool, len(values)),
	}
	for _, v := range values {
		l.members[v] = true
		l.longest = max(l.longest, len(v))
	}
	return l
}

// Contains implements the operator "in" with the map.
func (l *stringList) Contains(v ref.Val) ref.Val {
	s, ok := v.(types.String)
	return types.Bool(ok && l.members[string(s)])
}
