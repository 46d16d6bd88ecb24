"""The table of public data sets. Each has one module with `DATA_SET` (its facts) and `load(root)` (its rows)."""

SETS = {
    "ava": ("ava", "AVA: AVA.txt with the official lists, TANet's csv or idealo's json"),
    "tad66k": ("tad66k", "TAD66K: the tables of merge/"),
    "flickr-aes": ("flickr_aes", "FLICKR-AES: the score file and the workers' table"),
    "para": ("para", "PARA: annotation/PARA-Giaa*.csv"),
    "aadb": ("aadb", "AADB: the lists of imgListFiles_label/ or AADBinfo.mat"),
    "eva": ("eva", "EVA: votes_filtered.csv"),
    "baid": ("baid", "BAID: dataset/*_set.csv"),
    "apddv2": ("apddv2", "APDDv2: csvfiles/*.csv or APDDv2-10023.csv"),
    "lapis": ("lapis", "LAPIS: the individual ratings and the lists of imageset/"),
    "spaq": ("spaq", "SPAQ: the workbook of scores"),
    "koniq-10k": ("koniq", "KonIQ-10k: either table of scores and distributions"),
    "agiqa-3k": ("agiqa3k", "AGIQA-3K: data.csv"),
}
"""Name on the command line → module in this folder, and its help text: the label files that it reads.

A new data set needs a module and an entry here.
"""
