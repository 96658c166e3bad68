"""From a genome to training batches."""
