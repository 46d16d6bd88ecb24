"""Human ratings from wherever people keep them, in one form."""

PUBLIC = {
    "ava": "AVA: AVA.txt with the official lists, TANet's csv or idealo's json",
    "tad66k": "TAD66K: the tables of merge/",
    "flickr-aes": "FLICKR-AES: the score file and the workers' table",
    "para": "PARA: annotation/PARA-Giaa*.csv",
    "aadb": "AADB: the lists of imgListFiles_label/ or AADBinfo.mat",
    "eva": "EVA: votes_filtered.csv",
    "baid": "BAID: dataset/*_set.csv",
    "apddv2": "APDDv2: csvfiles/*.csv or APDDv2-10023.csv",
    "lapis": "LAPIS: the individual ratings and the lists of imageset/",
    "spaq": "SPAQ: the workbook of scores",
    "koniq-10k": "KonIQ-10k: either table of scores and distributions",
    "agiqa-3k": "AGIQA-3K: data.csv",
}
"""Public data sets that `aesr1 ratings import` knows, and which of their files it reads."""
