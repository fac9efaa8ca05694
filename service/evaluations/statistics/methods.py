"""How each kind of number is computed, in a line for people."""

MIN_CLUSTERS = 10  # prompts: of fewer, a covariance that is clustered by prompt says too little doubt

METHODS = {
    "win_rate": "adjusted Wald with one win and one loss added (Bonett & Price 2012), clustered by prompt",
    "length_controlled": "logistic regression on the length difference (Dubois et al. 2024), clustered by prompt; "
    "none where one model's answers are always the longer ones",
    "sequential": "hedged betting e-process and confidence sequence (Waudby-Smith & Ramdas 2023)",
    "agreement": "Krippendorff's alpha, interval metric; bootstrap over items (Hayes & Krippendorff 2007)",
    "kappas": "Cohen's kappa (1960), people by majority",
    "ranking": "Bradley-Terry with ties (Davidson 1970), maximum likelihood; covariance clustered by prompt",
    "position": "win rate of the answer shown first; both orders cancel what answers are worth (Zheng et al. 2023)",
    "metrics": "mean with Student's t interval over prompts",
}
