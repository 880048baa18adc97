"""Error rates of recognisers under noise and damaged lips, with intervals, comparisons and reports."""
